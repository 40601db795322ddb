"""Every random choice of a training step: prompts, noise, plans, guidance, frames, replayed clips.

Each draw has a generator of its own, seeded by the run's seed, a name and the step. So a step can
be drawn again without the steps before it (a resumed run does), and a new draw changes no other.
Plans, guidance and frames are the same on every rank, so all ranks do the same amount of work;
prompts and noise differ from rank to rank.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor

from base_model.core.family import FAMILY
from base_model.sampling.sigmas import MU
from base_model.training.flow_matching import draw_sigmas
from reward_tuning.errors import TuningError
from reward_tuning.gradient.plan import Plan
from reward_tuning.gradient.reuse import Restart
from reward_tuning.inputs.prompts import Prompt, PromptStream
from reward_tuning.runs.training_state import TrainingState
from reward_tuning.schema.recipe import Recipe
from reward_tuning.schema.sections import TrainSection
from reward_tuning.seeds import derive_generator, derive_seed
from reward_tuning.tuning.plan_draws import (
    draw_later_plans,
    draw_more_plans,
    draw_plan,
    draw_restarts,
)

Policy = Literal["all", "first", "random-window", "stratified"]
"""Values of `train.decoded`."""


@dataclass(frozen=True)
class Batch:
    """The draws of one batch.

    Attributes:
        prompts: One for each clip.
        noise_seeds: One for each clip.
        plan: The steps that receive gradient.
        guidance_scale: None keeps the sampler's.
        frames: Increasing positions that may be judged; latents before the first one needed are
            decoded without gradient. None allows every frame.
        more_plans: Further plans for the same rollout and reward gradient, weighted like `plan`.
        restarts: Further chains from the end of this rollout, weighted like the rollout itself.
        later_plans: Plans of each further update on this rollout, with the same reward gradient.
        near: Number and distance of a batch of clips near those of these seeds; None for those.
        common: Seed of what all ranks draw alike within the batch; None for the first clip's.
    """

    prompts: Sequence[Prompt]
    noise_seeds: Sequence[int]
    plan: Plan
    guidance_scale: float | None = None
    frames: tuple[int, ...] | None = None
    more_plans: tuple[Plan, ...] = ()
    restarts: tuple[Restart, ...] = ()
    later_plans: tuple[tuple[Plan, ...], ...] = ()
    near: tuple[int, float] | None = None
    common: int | None = None

    @property
    def common_seed(self) -> int:
        """Seed of the judges' frames and of the anchored steps, the same on every rank."""
        return self.noise_seeds[0] if self.common is None else self.common


def clips_a_step(train: TrainSection, accelerator: Accelerator) -> int:
    """Return the clips of one optimiser step, over all accumulated batches and processes."""
    return train.gradient_accumulation * accelerator.num_processes * train.batch_size


def draw_batch(
    recipe: Recipe,
    stream: PromptStream,
    sigmas: Tensor,
    state: TrainingState,
    accelerator: Accelerator,
    number: int,
) -> Batch:
    """Draw this rank's share of a step's batch.

    Args:
        recipe: Resolved.
        stream: Training prompts.
        sigmas: `(N + 1,)`, the training table.
        state: Before the step; its position counts clips.
        accelerator: Gives this process's rank.
        number: Index of the accumulated batch within the step.
    """
    size, step = recipe.train.batch_size, state.step + 1
    # Batches of one step follow each other in the stream, and within a batch the ranks do.
    first = state.position + number * accelerator.num_processes * size
    begin = first + accelerator.process_index * size
    places = range(begin, begin + size)
    plan = draw_plan(recipe, sigmas, step=step, batch=number)
    return Batch(
        [stream.prompt_at(place // recipe.train.clips_per_prompt) for place in places],
        [derive_seed(recipe.seed, "noise", place) for place in places],
        plan,
        draw_guidance(recipe, step=step, batch=number),
        draw_frames(recipe, step=step, batch=number),
        draw_more_plans(recipe, sigmas, plan, step=step, batch=number),
        draw_restarts(recipe, sigmas, step=step, batch=number),
        draw_later_plans(recipe, sigmas, plan, step=step, batch=number),
        # The first clip's of the whole batch, which one process would draw with.
        common=derive_seed(recipe.seed, "noise", first) if accelerator.num_processes > 1 else None,
    )


# --- guidance and frames


def draw_guidance(recipe: Recipe, *, step: int, batch: int) -> float:
    """Draw the guidance scale of one batch, the same on every rank."""
    sampling = recipe.sampling
    if sampling.guidance_range is None:
        return sampling.guidance_scale
    low, high = sampling.guidance_range
    draw = derive_generator(recipe.seed, "guidance", step, batch)
    return low + (high - low) * float(torch.rand((), generator=draw, dtype=torch.float64))


def draw_frames(recipe: Recipe, *, step: int, batch: int) -> tuple[int, ...] | None:
    """Draw the frames of one batch that may be judged, the same on every rank; None for all."""
    train = recipe.train
    if train.decoded == "all":
        return None
    draw = derive_generator(recipe.seed, "decoded", step, batch)
    return decoded_frames(train.decoded, train.decoded_latents, recipe.sampling.frames, draw)


def decoded_frames(
    policy: Policy, latents: int, frames: int, draw: torch.Generator
) -> tuple[int, ...]:
    """Choose the part of a clip that is decoded and judged.

    A judge that only ever sees the first frames pays for them with motion: the cheapest clip is
    then a good still. The two random policies avoid that.

    - `all`: every frame. The decoder keeps the activations of one latent at a time.
    - `first`: the first `latents` latents, as in the published script.
    - `random-window`: `latents` consecutive latents from a random start. The latents before them
      are decoded as context, without gradient.
    - `stratified`: the clip in `latents` equal parts, one random latent of each: early and late
      frames in every batch. Everything between the first and the last of them is decoded.

    Args:
        policy: One of the four.
        latents: From 1 to the number of the clip's latents; `all` ignores it.
        frames: Length of the clip, 4k + 1.
        draw: CPU generator.

    Returns:
        Increasing positions in [0, frames).

    Raises:
        TuningError: `latents` exceeds the clip's latents.
    """
    count = FAMILY.latent_frames(frames)
    if policy == "all":
        return tuple(range(frames))
    if not 1 <= latents <= count:
        raise TuningError(
            f"train.decoded_latents is {latents}; a clip of {frames} frames has {count} latents"
        )
    if policy == "stratified":
        edges = [part * count // latents for part in range(latents + 1)]
        chosen = [
            int(torch.randint(low, high, (), generator=draw))
            for low, high in itertools.pairwise(edges)
        ]
    else:
        last = count - latents if policy == "random-window" else 0
        start = int(torch.randint(0, last + 1, (), generator=draw))
        chosen = list(range(start, start + latents))
    return tuple(frame for latent in chosen for frame in frames_of(latent))


def frames_of(latent: int) -> range:
    """Return the frames that one latent decodes to: one for the first latent, four for others."""
    end = FAMILY.time_stride * latent + 1
    return range(max(end - FAMILY.time_stride, 0), end)


# --- replay


@dataclass(frozen=True)
class ReplayDraw:
    """The draws of one batch of replayed clips.

    Attributes:
        clips: b indices into the clips.
        sigmas: `(b,)` float32 noise levels in (0, 1).
        noise_seeds: b seeds.
    """

    clips: tuple[int, ...]
    sigmas: Tensor
    noise_seeds: tuple[int, ...]


def draw_replay_batch(
    recipe: Recipe, clips: int, step: int, accelerator: Accelerator, number: int
) -> ReplayDraw:
    """Draw this rank's replay in a step: as many clips as a batch of prompts has.

    Args:
        recipe: With a `train.replay`.
        clips: Number of clips to draw from.
        step: Counted from 1; a multiple of `train.replay.every`.
        accelerator: Gives this process's rank.
        number: Index of the accumulated batch within the step.
    """
    train = recipe.train
    assert train.replay is not None
    part = number * accelerator.num_processes + accelerator.process_index
    return draw_replay(
        recipe.seed,
        step // train.replay.every - 1,
        clips_a_step(train, accelerator),
        slice(part * train.batch_size, (part + 1) * train.batch_size),
        clips,
    )


def draw_replay(seed: int, turn: int, size: int, part: slice, clips: int) -> ReplayDraw:
    """Draw one batch of a replay, so that the batches of all processes form one joint draw.

    Noise levels follow the base's training (`draw_sigmas`, mu = 1), stratified over the whole step.
    Every clip comes once before any comes again, in a new order each time.

    Args:
        seed: Seed of the run.
        turn: Index of this replay within the run, from 0.
        size: Clips of one replay, over all batches and processes.
        part: Place of this batch within them.
        clips: Number of clips to draw from.
    """
    sigmas = draw_sigmas(size, derive_generator(seed, "replay", "sigmas", turn), mu=MU)
    places = range(turn * size, (turn + 1) * size)[part]
    return ReplayDraw(
        tuple(_clip_at(seed, place, clips) for place in places),
        sigmas[part],
        tuple(derive_seed(seed, "replay", "noise", place) for place in places),
    )


def _clip_at(seed: int, place: int, clips: int) -> int:
    epoch, index = divmod(place, clips)
    order = torch.randperm(clips, generator=derive_generator(seed, "replay", "order", epoch))
    return int(order[index])

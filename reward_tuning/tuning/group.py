"""The clips of a prompt that are worth a gradient, out of more that are only rolled out and scored.

A rollout without gradient is cheap next to a judgement with gradient and a sweep. PODS (Xu et al.,
arXiv 2504.13818) rolls out a larger group and updates on the subset whose rewards vary most; of two
clips that is the best and the worst. Pro-GRPO (arXiv 2512.15347) does so for flow models. Both
weight clips by their advantage. A gradient of the reward itself needs no advantage: here the choice
only decides which noise a batch begins with, so whatever follows is that of these clips alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from reward_tuning.judges.judge import FramedJudge, Judge, judged_window
from reward_tuning.sampling.cheap_steps import CheapSteps, whole_rollout
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.draws import Batch
from reward_tuning.tuning.sigma_tables import group_sigmas
from reward_tuning.tuning.step import PhaseFn, StepOptions
from rewards.core.shared_towers import frames_shared

Keep = Literal["extremes", "best", "worst"]
"""Values of `train.group.keep`."""


@dataclass(frozen=True)
class Group:
    """How a batch's clips are chosen.

    Attributes:
        clips: Candidates of each prompt.
        kept: Clips of each prompt that are kept, neighbours in the batch; fewer than `clips`.
        keep: Which ones.
        sigmas: `(n + 1,)`, the table of the candidates' rollouts.
        cheap: How their steps are computed; None computes them exactly.
        small_decoder: Judges see what the generator's small decoder shows.
    """

    clips: int
    kept: int
    keep: Keep
    sigmas: Tensor
    cheap: CheapSteps | None = None
    small_decoder: bool = False


@dataclass(frozen=True)
class GroupReport:
    """The scores of a batch's candidates: the judges' weighted sum, as the loss weights them.

    Attributes:
        clips: Number of candidates.
        score: Their mean.
        deviation: Standard deviation within a prompt, the mean over the prompts.
        kept: Mean of those that are kept.
    """

    clips: int
    score: float
    deviation: float
    kept: float


def group_of(recipe: Recipe, options: StepOptions) -> Group | None:
    """Return how a recipe chooses the clips of a batch; None where it trains on all of them.

    Args:
        recipe: Resolved.
        options: The recipe's choices for every batch; candidates take as cheap steps and decoder.
    """
    train = recipe.train
    if train.group is None:
        return None
    return Group(
        train.group.clips,
        train.clips_per_prompt,
        train.group.keep,
        group_sigmas(recipe),
        options.cheap,
        options.decoder == "small",
    )


def chosen_batch(
    sampler: ClipSampler,
    judges: Sequence[Judge],
    batch: Batch,
    group: Group,
    *,
    phase: PhaseFn = lambda name: nullcontext(),
) -> tuple[Batch, GroupReport]:
    """Return a batch of the same prompts, begun from the noise of the clips that are kept.

    Candidates are rolled out as many at a time as the batch has clips, to the end of their table.
    Where a score is not finite, the first clips are kept, and the step that follows finds out why.

    Args:
        sampler: The generator with its adapter attached.
        judges: Judges of frames.
        batch: Drawn; `group.kept` clips of each prompt are neighbours.
        group: How to choose.
        phase: Entered around `candidates` and `choice`.
    """
    sampler = sampler.guided_by(batch.guidance_scale)
    firsts = range(0, len(batch.prompts), group.kept)
    seeds = [candidate_seeds(batch.noise_seeds[i : i + group.kept], group.clips) for i in firsts]
    prompts = [batch.prompts[i] for i in firsts for _ in range(group.clips)]
    every = [seed for of_prompt in seeds for seed in of_prompt]
    size, latents = len(batch.prompts), []
    with phase("candidates"):
        for start in range(0, len(every), size):
            some = slice(start, start + size)
            walked = whole_rollout(sampler, prompts[some], every[some], group.sigmas, group.cheap)
            latents.append(walked.states[-1])
    with phase("choice"):
        scores = torch.cat(
            [
                clip_scores(
                    sampler,
                    judges,
                    of,
                    [prompt.reward_text for prompt in prompts[start : start + size]],
                    batch.frames,
                    small_decoder=group.small_decoder,
                )
                for start, of in zip(range(0, len(every), size), latents, strict=True)
            ]
        ).view(-1, group.clips)
    places = [kept_places(row.tolist(), group.kept, group.keep) for row in scores]
    kept = [seeds[prompt][place] for prompt, row in enumerate(places) for place in row]
    report = GroupReport(
        len(every),
        float(scores.mean()),
        float(scores.std(dim=1, correction=0).mean()),
        float(torch.stack([row[of] for row, of in zip(scores, places, strict=True)]).mean()),
    )
    # What all ranks draw alike keeps the seed of the batch as it was drawn, which every rank knows;
    # the scores, on which the first clip kept depends, are not exchanged.
    return replace(batch, noise_seeds=kept, common=batch.common_seed), report


def group_columns(reports: Sequence[GroupReport]) -> dict[str, Any]:
    """Return the columns of a step's row: of this process's batches; none without groups."""
    if not reports:
        return {}
    numbers = [asdict(report) for report in reports]
    means = {key: sum(of[key] for of in numbers) / len(numbers) for key in numbers[0]}
    return {"group": means | {"clips": sum(of["clips"] for of in numbers)}}


def candidate_seeds(own: Sequence[int], clips: int) -> list[int]:
    """Return the noise seeds of a prompt's candidates: its own clips of the batch, and new ones."""
    return [*own, *(derive_seed(own[0], "candidate", i) for i in range(clips - len(own)))]


@torch.no_grad()
def clip_scores(
    sampler: ClipSampler,
    judges: Sequence[Judge],
    latents: Tensor,
    prompts: Sequence[str],
    frames: tuple[int, ...] | None,
    *,
    small_decoder: bool = False,
) -> Tensor:
    """Score clips as the loss weights the judges: sum of weight * (score - mean) / std.

    Without augmentations, hinges and terms on whole clips.

    Args:
        sampler: Its generator decodes.
        judges: Judges of frames.
        latents: `(b, 16, t, h, w)`.
        prompts: b texts.
        frames: Positions that may be judged; None for every frame.
        small_decoder: Decode with the generator's small decoder.

    Returns:
        `(b,)` float64 on the CPU; NaN for all where a frame is not finite, which judges refuse.
    """
    framed = [judge for judge in judges if isinstance(judge, FramedJudge)]
    if frames is not None:
        framed = [judge.within(frames) for judge in framed]
    window = judged_window(framed)
    shown = sampler.generator.decode(latents, window, by="small" if small_decoder else "vae")
    if not bool(shown.isfinite().all()):
        return torch.full((len(prompts),), torch.nan, dtype=torch.float64)
    total = torch.zeros(len(prompts), dtype=torch.float64)
    with frames_shared(shown):
        for judge in framed:
            scores = judge.scores(shown, prompts, first=window.start).double().cpu()
            total += judge.weight * (scores - judge.mean) / judge.std
    return total


def kept_places(scores: Sequence[float], count: int, keep: Keep) -> list[int]:
    """Return the places of the clips that are kept, the best first.

    The subset of largest variance consists of some of the highest and the rest of the lowest
    (PODS, arXiv 2504.13818), so only `count` + 1 subsets are compared.

    Args:
        scores: Of one prompt's candidates; where one is not finite, the first clips are kept.
        count: Number to keep.
        keep: Which.
    """
    if not all(map(math.isfinite, scores)):
        return list(range(count))
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    if keep == "best":
        return order[:count]
    if keep == "worst":
        return order[-count:]

    def split(highest: int) -> list[int]:
        return order[:highest] + order[len(order) - (count - highest) :]

    def variance(places: list[int]) -> float:
        return float(torch.tensor([scores[i] for i in places], dtype=torch.float64).var())

    return max((split(highest) for highest in range(count + 1)), key=variance)

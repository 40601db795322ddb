"""Base against tuned: the same prompts, the same noise, and the confidence of the difference."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from base_model.networks.small_decoder import DecodedBy
from base_model.tiny.captions import parse_caption
from base_model.tiny.oracle import judge as oracle_judge
from base_model.tiny.scenes import FRAMES, SIDE
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.judges.judge import Judge, LatentJudge
from reward_tuning.lora.adapter import adapter_state, load_adapter_state, scaled
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.seeds import derive_seed
from reward_tuning.statistics.bootstrap import changed, paired_difference
from reward_tuning.statistics.corrections import adjusted
from reward_tuning.tuning.clip_measures import diversity, measures
from rewards.core.shared_towers import frames_shared


@dataclass(frozen=True)
class SideScores:
    """Scores of one side, base or tuned.

    Attributes:
        values: Metric to one value for each prompt, the mean over its seeds.
        clips: Prompt index to the clip `(f, 3, H, W)` of its first seed, on the CPU, for the first
            `keep_clips` prompts.
    """

    values: dict[str, dict[int, float]]
    clips: dict[int, Tensor] = field(default_factory=dict)

    def means(self) -> dict[str, float]:
        """Return each metric's mean over prompts."""
        return {name: sum(of.values()) / len(of) for name, of in self.values.items()}

    def within(self, prompts: Collection[int]) -> SideScores:
        """Return the scores of some of the prompts."""
        values = {
            name: {index: value for index, value in of.items() if index in prompts}
            for name, of in self.values.items()
        }
        return SideScores(values, self.clips)


def evaluation_seed(seed: int, prompt: int, clip: int) -> int:
    """Return the noise seed of a held-out prompt's clip, the same for base, tuned and samples."""
    return derive_seed(seed, "evaluation", prompt, clip)


def evaluate(
    sampler: ClipSampler,
    adapter: Mapping[str, Tensor] | None,
    prompts: Mapping[int, Prompt],
    judges: Sequence[Judge],
    sigmas: Tensor,
    *,
    seed: int,
    strength: float = 1.0,
    seeds: int = 1,
    batch_size: int = 4,
    keep_clips: int = 0,
    oracle: bool = False,
    by: DecodedBy = "vae",
    at_work: Callable[[], AbstractContextManager[None]] = nullcontext,
    seen: Callable[[Sequence[int], Tensor, Tensor], None] = lambda indices, latents, frames: None,
    stage: str = "evaluation",
    progress: ProgressFn = silent,
) -> SideScores:
    """Sample and score clips of one side.

    16 parameters: samples, calibration, guards and evaluation share this loop, and each sets other
    ones.

    Args:
        sampler: The generator, with or without an adapter attached.
        adapter: Tensors of the side, such as the tuned ones; None is the base, bit for bit. The
            tensors that were attached before are restored afterwards.
        prompts: Index to prompt; the index decides the noise, so that several processes can share
            the work and later runs can be compared.
        judges: Training rewards and held-out ones.
        sigmas: `(N + 1,)`, the sampler's table.
        seed: Seed of the run.
        strength: Factor of the adapter's effect; without effect on the base.
        seeds: Clips for each prompt; 2 or more add the metric `diversity`.
        batch_size: Clips sampled at a time.
        keep_clips: Number of prompts, from the first, whose first clip is returned.
        oracle: Also ask the embedded world's oracle (`oracle_applies`).
        by: What decodes (`Generator.decode`): the VAE, unless clips are only looked at.
        at_work: Context that is entered while VAE and judges work (`Offload.at_work`).
        seen: Called with the prompts' indices, the latents and the frames of every batch, while the
            judges work.
        stage: Name of the progress events.
        progress: Called after every sampling step.

    Returns:
        For each prompt the score of each judge, the measures of `clip_measures`, and `oracle` with
        its parts and `oracle_tone_off`.
    """
    wanted = [(index, clip) for index in prompts for clip in range(seeds)]
    found: dict[str, dict[int, list[float]]] = {}
    clips: dict[int, Tensor] = {}
    of_prompt: list[Tensor] = []  # clips of the current prompt, for its diversity
    with side(sampler.generator.transformer, adapter, strength):
        for start in range(0, len(wanted), batch_size):
            part = wanted[start : start + batch_size]
            chosen = [prompts[index] for index, _ in part]

            def report_step(step: int, start: int = start) -> None:
                phase = f"step {step + 1} of {len(sigmas) - 1}"
                progress(ProgressEvent(stage, start, len(wanted), phase))

            latents = sampler.latents(
                chosen,
                [evaluation_seed(seed, *place) for place in part],
                sigmas,
                report_step,
            )
            with at_work():
                frames = sampler.generator.decode(latents, by=by)
                scored = clip_scores(frames, latents, chosen, judges, oracle=oracle)
                seen([index for index, _ in part], latents, frames)
            for name, scores in scored.items():
                of = found.setdefault(name, {})
                for (index, _), value in zip(part, scores.tolist(), strict=True):
                    of.setdefault(index, []).append(value)
            for (index, clip), shown in zip(part, frames.cpu(), strict=True):
                if clip == 0 and index < keep_clips:
                    clips[index] = shown.clone()
                if seeds > 1:
                    of_prompt.append(shown)
                    if clip == seeds - 1:
                        found.setdefault("diversity", {})[index] = [diversity(of_prompt)]
                        of_prompt = []
    progress(ProgressEvent(stage, len(wanted), len(wanted)))
    means = {
        name: {index: sum(values) / len(values) for index, values in of.items()}
        for name, of in found.items()
    }
    return SideScores(means, clips)


def compare(
    base: SideScores,
    tuned: SideScores,
    *,
    seeds: int,
    seed: int,
    primary: str | None = None,
) -> dict[str, Any]:
    """Compare two sides, as evaluation.json records it.

    Args:
        base: Scores of the base.
        tuned: Scores of the tuned model, on the same prompts.
        seeds: Clips for each prompt.
        seed: Seed of the resampling.
        primary: The metric that decides, named beforehand.

    Returns:
        `{"primary", "prompts", "seeds", "base": {metric: mean}, "tuned": ..., "difference":
        {metric: {"mean", "low", "high", "p", "p_adjusted", "up", "down", "prompts"}}}`: low and
        high bound the 95 % interval over prompts and p tests "no change" (`paired_difference`);
        p_adjusted is corrected for the number of metrics other than `primary` (`holm`); up and
        down count the prompts that rose and fell.

    Raises:
        TuningError: Fewer than two prompts.
    """
    assert base.values.keys() == tuned.values.keys()
    difference: dict[str, dict[str, float]] = {}
    for name, of in base.values.items():
        assert of.keys() == tuned.values[name].keys()
        order = sorted(of)
        before = [of[index] for index in order]
        after = [tuned.values[name][index] for index in order]
        up, down = changed(before, after)
        found = asdict(paired_difference(before, after, clips=seeds, seed=seed))
        difference[name] = found | {"up": up, "down": down, "prompts": len(order)}
    corrected = adjusted({name: found["p"] for name, found in difference.items()}, primary)
    for name, p in corrected.items():
        difference[name]["p_adjusted"] = p
    return {
        "primary": primary,
        "prompts": len(next(iter(base.values.values()))),
        "seeds": seeds,
        "base": base.means(),
        "tuned": tuned.means(),
        "difference": difference,
    }


def merged(parts: Sequence[SideScores]) -> SideScores:
    """Merge the scores of several processes, each on prompts of its own."""
    values: dict[str, dict[int, float]] = {}
    clips: dict[int, Tensor] = {}
    for part in parts:
        clips |= part.clips
        for name, of in part.values.items():
            values.setdefault(name, {}).update(of)
    return SideScores(values, clips)


def oracle_applies(prompts: Sequence[Prompt], size: tuple[int, int, int]) -> bool:
    """Return whether the embedded world's oracle can judge clips of these prompts.

    Args:
        prompts: All of them must be captions of its grammar.
        size: Frames, height and width; must be those of the world.
    """
    if size != (FRAMES, SIDE, SIDE):
        return False
    try:
        for prompt in prompts:
            parse_caption(prompt.text)
    except ValueError:
        return False
    return True


@torch.no_grad()
def clip_scores(
    frames: Tensor,
    latents: Tensor | None,
    prompts: Sequence[Prompt],
    judges: Sequence[Judge],
    *,
    oracle: bool,
) -> dict[str, Tensor]:
    """Score clips by judges and measures.

    Args:
        frames: `(b, f, 3, H, W)` in [0, 1].
        latents: Latents of the same clips, `(b, 16, t, H/8, W/8)`; None skips judges of latents.
        prompts: b prompts.
        judges: Each adds a metric named by its label.
        oracle: Also ask the embedded world's oracle.

    Returns:
        Metric to `(b,)`.
    """
    texts = [prompt.reward_text for prompt in prompts]
    found: dict[str, Tensor] = {}
    with frames_shared(frames):
        for judge in judges:
            if not isinstance(judge, LatentJudge):
                found[judge.label] = judge.scores(frames, texts)
            elif latents is not None:
                found[judge.label] = judge.scores(latents, 0.0, texts)
    found |= measures(frames)
    if oracle:
        seen = oracle_judge(frames.cpu(), [prompt.text for prompt in prompts])
        found["oracle"] = seen.all_right
        found |= {f"oracle_{name}": right for name, right in seen.right.items()}
        found["oracle_tone_off"] = seen.tone_off
    return found


@contextmanager
def side(
    transformer: nn.Module, adapter: Mapping[str, Tensor] | None, strength: float = 1.0
) -> Iterator[None]:
    """Make the transformer the base, or the tuned one, within the context."""
    if adapter is None:
        with scaled(transformer, 0.0):
            yield
        return
    before = {name: tensor.clone() for name, tensor in adapter_state(transformer).items()}
    load_adapter_state(transformer, adapter)
    try:
        with scaled(transformer, strength):
            yield
    finally:
        load_adapter_state(transformer, before)

"""Scores of the base's clips: mean and standard deviation of each judge, for `mean` and `std`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from base_model.generator import load_generator
from reward_tuning.errors import TuningError
from reward_tuning.inputs.text_states import text_states
from reward_tuning.judges.loading import load_judges
from reward_tuning.judges.missing import require_judges
from reward_tuning.judges.shared_encoder import shared_encoder
from reward_tuning.judges.truncation import report_truncation
from reward_tuning.lora.frozen import frozen_adapter
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.sampling.devices import placed
from reward_tuning.sampling.generator_parts import generator_checkpoint, vae_dtype
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.evaluation import evaluate
from reward_tuning.tuning.parts import clip_sampler
from reward_tuning.tuning.prompt_sets import training_prompts
from reward_tuning.tuning.sigma_tables import evaluation_sigmas

DEFAULT_PROMPTS = 32  # the standard error of a mean is then a fifth of a standard deviation
DIGITS = 4  # significant, in a recipe; a mean of 32 clips is known to fewer


@dataclass(frozen=True)
class Calibration:
    """Scores that one judge gave the base's clips.

    Attributes:
        label: Label of the judge.
        clips: Number of clips.
        mean: Mean over clips.
        deviation: Standard deviation over clips (n - 1); 0 if all are equal.
        low: Lowest score.
        high: Highest score.
    """

    label: str
    clips: int
    mean: float
    deviation: float
    low: float
    high: float

    @classmethod
    def of(cls, label: str, scores: Sequence[float]) -> Calibration:
        """Summarise the scores of two clips or more."""
        values = torch.tensor(scores, dtype=torch.float64)
        return cls(
            label, len(scores), float(values.mean()), float(values.std()), min(scores), max(scores)
        )


def calibrate(
    recipe: Recipe,
    device: torch.device,
    *,
    prompts: int | None = None,
    progress: ProgressFn = silent,
) -> list[Calibration]:
    """Sample clips of the base and score them with the recipe's training rewards.

    The clips are those of the first training prompts in training order, sampled as in the
    evaluation, without an adapter. A judge of noisy latents sees them without noise.

    Args:
        recipe: Resolved.
        device: Device of generator and judges.
        prompts: Number of prompts, with one clip each, 2 or more; None for 32, or all if fewer.
        progress: Called as the work proceeds.

    Returns:
        One for each reward, in the recipe's order; none for one that only compares clips.

    Raises:
        TuningError: Fewer than 2 prompts, or more than the file has; or no reward scores a clip
            by itself.
        GeneratorError: A generator that cannot be loaded or does not take these sizes.
        RewardError: A judge that cannot be loaded.
    """
    stream = training_prompts(recipe)
    prompts = min(DEFAULT_PROMPTS, len(stream)) if prompts is None else prompts
    if not 2 <= prompts <= len(stream):
        raise TuningError(
            f"prompts: got {prompts}; allowed is 2 ... {len(stream)}, the number in prompts.train"
        )
    chosen = dict(enumerate(stream.batch_at(0, prompts)))
    sigmas = evaluation_sigmas(recipe)
    alone = [judge for judge in recipe.rewards if judge.scores_alone]
    if not alone:
        raise TuningError(
            "rewards: each judge compares clips of one prompt (pairwise), so its scores have mean "
            "0 and lie in [-0.5, 0.5]: there is nothing to measure; leave mean and std as they are"
        )
    require_judges(alone)
    sampling = recipe.sampling
    progress(ProgressEvent("loading", phase="judges"))
    shared = shared_encoder(recipe, alone, device)
    judges = load_judges(alone, sampling.frames, device, shared)
    report_truncation(judges, {"prompts.train": list(chosen.values())}, progress)
    dtype = getattr(torch, recipe.generator.dtype)
    texts = [*(one.text for one in chosen.values()), sampling.negative_prompt]
    states = text_states(
        generator_checkpoint(recipe.generator),
        texts,
        dtype=dtype,
        device=placed(recipe.generator.text_encoder_device, device),
        encoder=None if shared is None else shared.encoder,
        progress=progress,
    )
    progress(ProgressEvent("loading", phase=f"generator {recipe.generator.checkpoint}"))
    generator = load_generator(
        generator_checkpoint(recipe.generator),
        dtype=dtype,
        vae_dtype=vae_dtype(recipe.generator),
        vae_device=recipe.generator.vae_device,
        device=device,
        text_encoder=False,
        memory=recipe.generator.memory,
        quantise=recipe.generator.quantise,
    )
    frozen = frozen_adapter(generator, recipe.generator, progress)
    sampler = clip_sampler(recipe, generator, states, list(chosen.values()), progress, frozen)
    scores = evaluate(
        sampler,
        None,
        chosen,
        judges,
        sigmas,
        seed=recipe.seed,
        batch_size=recipe.evaluation.batch_size or recipe.train.batch_size,
        stage="base clips",
        progress=progress,
    )
    return [
        Calibration.of(judge.label, list(scores.values[judge.label].values())) for judge in judges
    ]


def calibrated(recipe: Recipe, found: Sequence[Calibration]) -> Recipe:
    """Return the recipe with the measured `mean` and `std` of each reward that has some.

    Raises:
        TuningError: All clips have the same score for a judge, so the standard deviation is 0.
    """
    rewards: list[Any] = []
    measures = {one.label: one for one in found}
    for section in recipe.rewards:
        one = measures.get(section.label)
        if one is None:
            rewards.append(section)
            continue
        if not one.deviation > 0:
            raise TuningError(
                f"the judge {one.label} gave {one.mean:g} to every clip, so its standard "
                "deviation is 0; measure more prompts, or leave it out"
            )
        measured = {"mean": rounded(one.mean), "std": rounded(one.deviation)}
        rewards.append(section.model_copy(update=measured))
    return recipe.model_copy(update={"rewards": rewards})


def rounded(value: float) -> float:
    """Round to `DIGITS` significant digits."""
    return float(f"{value:.{DIGITS}g}")

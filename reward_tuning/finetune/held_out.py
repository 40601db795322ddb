"""Measure held-out clips: their loss, and clips sampled from their captions.

Every draw is named by the seed and the clip's number, so two measurements differ only in the
weights, and no measurement changes a draw of the training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from base_model.generator import TextCondition
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from reward_tuning.finetune.batches import ClipBatch
from reward_tuning.finetune.encoding import EMPTY, BatchEncoder
from reward_tuning.finetune.parts import FinetuneParts
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.step import HELD_OUT_LEVELS, autocast, held_out_loss
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.samples import write_pair, write_prompts
from reward_tuning.seeds import derive_seed


def measure(
    recipe: FinetuneRecipe, parts: FinetuneParts, progress: ProgressFn = silent
) -> dict[str, Any] | None:
    """Measure the loss of the held-out clips with the current weights; None where there are none.

    Returns:
        `{"loss": mean, "by_level": {"0.1": ..., ...}}`.
    """
    if parts.held_out is None or parts.held_out_encoder is None:
        return None
    rows = []
    for number in range(parts.held_out.epoch):
        progress(ProgressEvent("held-out clips", number, parts.held_out.epoch))
        rows.append(
            held_out_loss(
                parts.generator,
                parts.held_out_encoder(parts.held_out(number)),
                recipe.flow,
                seed=recipe.seed,
                number=number,
                autocast_dtype=recipe.train.autocast,
            )
        )
    means = torch.tensor(rows, dtype=torch.float64).mean(dim=0).tolist()
    levels = {str(level): mean for level, mean in zip(HELD_OUT_LEVELS, means, strict=True)}
    return {"loss": sum(means) / len(means), "by_level": levels}


def held_out_columns(measured: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the result of `measure` as columns of a row of metrics.jsonl."""
    if measured is None:
        return {}
    return {"held_out": {"loss": measured["loss"], **measured["by_level"]}}


def write_held_out_samples(
    recipe: FinetuneRecipe,
    parts: FinetuneParts,
    folder: RunFolder,
    step: int,
    progress: ProgressFn = silent,
) -> None:
    """Sample and write the clips of a step with the current weights.

    Each file has the held-out clip on the left and, on the right, one sampled from its caption and
    its other conditions: kept pixels, control clip, camera, reference image. Nothing is written
    where no clip is held out.

    Args:
        recipe: Recipe of the run.
        parts: Everything that was loaded.
        folder: Folder of the run.
        step: Optimiser steps done.
        progress: Receives an event after every sampling step.

    Raises:
        TuningError: A file has changed since it was checked, or the disk is full.
    """
    if parts.held_out is None or parts.held_out_encoder is None:
        return
    about, encoder = [], parts.held_out_encoder
    count = min(recipe.samples.count, parts.held_out.epoch)
    for number in range(count):
        planned = replace(parts.held_out(number), copies=1)
        seed = derive_seed(recipe.seed, "samples", number)

        def report(step: int, number: int = number) -> None:
            phase = f"step {step + 1} of {recipe.samples.steps}"
            progress(ProgressEvent("samples", number, count, phase))

        drawn = sample_like(recipe, encoder, planned, seed=seed, on_step=report)
        path = folder.samples(step) / f"{number:02d}.mp4"
        write_pair(encoder.reader.frames(planned, 0), drawn.cpu(), path)
        row = encoder.reader.clips[planned.clips[0]].row
        about.append({"prompt": row.text, "seed": seed, "clip": str(row.file)})
    if count:
        write_prompts(folder, about)
        progress(ProgressEvent("samples", count, count))


@torch.no_grad()
def sample_like(
    recipe: FinetuneRecipe,
    encoder: BatchEncoder,
    planned: ClipBatch,
    *,
    seed: int,
    on_step: Callable[[int], None] = lambda step: None,
) -> Tensor:
    """Sample a clip under the conditions of a held-out one, and of its size.

    Args:
        recipe: Recipe of the run.
        encoder: Encodes the held-out clips.
        planned: A batch of one clip.
        seed: Seed of the noise.
        on_step: Called with i after step i.

    Returns:
        `(f, 3, H, W)` in [0, 1].
    """
    generator, section = encoder.generator, recipe.samples
    condition = encoder.condition(planned)
    channels = None if generator.kind.field is None else getattr(condition, generator.kind.field)
    empty = encoder.states[EMPTY][None].to(condition.text)
    size = (planned.frames, planned.height, planned.width)
    with autocast(generator, recipe.train.autocast):
        latents = euler_sample(
            generator,
            generator.conditioned(TextCondition(condition.text, empty), channels),
            generator.initial_noise(generator.latent_shape(1, *size), [seed]),
            sigma_table(section.steps),
            Guidance(section.guidance_scale),
            lambda step, _: on_step(step),
        )
    return generator.decode(latents)[0]

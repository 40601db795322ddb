"""The results of a run: sample clips, the exported adapter, the evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from reward_tuning.files.atomic_write import atomic_write
from reward_tuning.files.finite_json import without_infinities
from reward_tuning.lora.export import export_every_format
from reward_tuning.lora.metadata import training_metadata
from reward_tuning.progress import ProgressFn
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.samples import SAMPLES, write_clips, write_pair, write_prompts
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_seed
from reward_tuning.statistics.verdicts import default_primary
from reward_tuning.tuning.evaluation import (
    compare,
    evaluate,
    evaluation_seed,
    oracle_applies,
)
from reward_tuning.tuning.final_sides import FinalSides
from reward_tuning.tuning.held_out_judges import held_out_judges
from reward_tuning.tuning.parts import RunParts
from reward_tuning.tuning.rendered_reference import rendered_means
from reward_tuning.tuning.sides import (
    FORMAT,
    question_records,
    side_records,
)
from reward_tuning.tuning.sigma_tables import evaluation_sigmas


def write_samples(
    recipe: Recipe,
    parts: RunParts,
    folder: RunFolder,
    step: int,
    adapter: Mapping[str, Tensor] | None,
    progress: ProgressFn,
) -> None:
    """Draw and write the clips of the first held-out prompts, with the evaluation's noise.

    Args:
        recipe: Resolved.
        parts: Parts of the run.
        folder: The run folder.
        step: Optimiser steps done.
        adapter: Adapter to sample with; None for the base.
        progress: Called after every sampling step.
    """
    prompts = parts.held_out[:SAMPLES]
    shown = evaluate(
        parts.sampler,
        adapter,
        dict(enumerate(prompts)),
        [],
        evaluation_sigmas(recipe),
        seed=recipe.seed,
        batch_size=recipe.evaluation.batch_size or recipe.train.batch_size,
        keep_clips=SAMPLES,
        by=recipe.train.sample_decoder,
        at_work=parts.offload.at_work,
        stage="samples",
        progress=progress,
    )
    write_clips(folder, step, shown.clips)
    write_prompts(
        folder,
        [
            {"prompt": prompt.text, "seed": evaluation_seed(recipe.seed, i, 0)}
            for i, prompt in enumerate(prompts)
        ],
    )


def finish(
    recipe: Recipe,
    parts: RunParts,
    accelerator: Accelerator,
    folder: RunFolder,
    adapter: Mapping[str, Tensor],
    progress: ProgressFn,
    checkpoint: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Export the adapter, evaluate base against tuned, write the clips and evaluation.json.

    With `lora.init` the base side is the base with that adapter, so that only the reward tuning is
    measured; `start` in evaluation.json records which it was. The processes share the held-out
    prompts; both sides of a prompt have the same noise.

    Args:
        recipe: Resolved.
        parts: Parts of the run.
        accelerator: Accelerator of the run.
        folder: The run folder.
        adapter: Adapter to export and evaluate.
        progress: Called after every sampling step.
        checkpoint: Which checkpoint the adapter is, and why (`GuardWatch.chosen`); None = the last.

    Returns:
        The content of evaluation.json, which is written last: that of `compare`, `start`, the
        judges, the prompts and the sides (`reward_tuning.tuning.sides`), `checkpoint` where it is
        given, and, in the embedded world, `rendered`: scores of renders of the held-out prompts.

    Raises:
        TuningError: The disk is full.
    """
    main, section = accelerator.is_main_process, recipe.evaluation
    if main:
        about = training_metadata(recipe, parts.fingerprints)
        export_every_format(recipe.lora, folder.lora, adapter, about)
    size = parts.sampler.size
    held_out, offload = held_out_judges(recipe, parts.offload, accelerator.device)
    # One that only compares clips of a prompt has nothing to say about a side.
    trained = [
        judge
        for section, judge in zip(recipe.rewards, parts.judges, strict=True)
        if section.scores_alone
    ]
    judges = [*trained, *held_out]
    oracle = oracle_applies(parts.held_out, size)
    step = recipe.train.steps if checkpoint is None else checkpoint["step"]
    sides = FinalSides(
        recipe, parts, accelerator, folder, judges, oracle, offload.at_work, progress, step
    ).evaluated(adapter)
    base, tuned = sides[0].scores, sides[1].scores
    seed = derive_seed(recipe.seed, "bootstrap") % 2**32
    trained_on = [judge.label for judge in trained]
    never_trained_on = [judge.label for judge in held_out]
    found: dict[str, Any] = {
        "format": FORMAT,
        "start": "base" if parts.start is None else "base with lora.init",
        "trained_on": trained_on,
        "never_trained_on": never_trained_on,
    }
    primary = section.primary or default_primary(never_trained_on, trained_on)
    found |= {} if checkpoint is None else {"checkpoint": dict(checkpoint)}
    found |= compare(base, tuned, seeds=section.seeds, seed=seed, primary=primary)
    if main and oracle:
        batch_size = section.batch_size or recipe.train.batch_size
        with offload.at_work():
            found["rendered"] = rendered_means(
                parts.held_out, judges, batch_size, accelerator.device
            )
    found["questions"] = question_records(
        parts.held_out, lambda index: evaluation_seed(recipe.seed, index, 0)
    )
    found["sides"] = side_records(
        sides,
        prompts=len(parts.held_out),
        seeds=section.seeds,
        seed=seed,
        primary=primary,
        decisive=1,
    )
    found = without_infinities(found)
    if main:
        write_clips(folder, step, tuned.clips)
        for index, before in base.clips.items():
            path = folder.samples(0).parent / "before-after" / f"{index:02d}.mp4"
            write_pair(before, tuned.clips[index], path)
        text = json.dumps(found, ensure_ascii=False, indent=2, allow_nan=False)
        atomic_write(folder.evaluation, text.encode())
    return found

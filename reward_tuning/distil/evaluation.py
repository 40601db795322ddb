"""The results of a distillation: sample clips, the exported adapter, student against teacher."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from base_model.sampling.sigmas import sigma_table
from reward_tuning.distil.parts import DistilParts
from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.files.atomic_write import atomic_write
from reward_tuning.files.finite_json import without_infinities
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.export import export_every_format
from reward_tuning.lora.identity import adapter_sha256
from reward_tuning.lora.metadata import training_metadata
from reward_tuning.lora.names import factors_by_module
from reward_tuning.progress import ProgressFn
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.samples import (
    SAMPLES,
    write_clips,
    write_pair,
    write_prompts,
    write_side_clips,
)
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.seeds import derive_seed
from reward_tuning.statistics.verdicts import default_primary
from reward_tuning.tuning.evaluation import (
    SideScores,
    compare,
    evaluate,
    evaluation_seed,
    merged,
    oracle_applies,
)
from reward_tuning.tuning.rendered_reference import rendered_means
from reward_tuning.tuning.sides import FORMAT, Side, question_records, side_records


def write_samples(
    recipe: DistilRecipe,
    parts: DistilParts,
    folder: RunFolder,
    step: int,
    adapter: Mapping[str, Tensor] | None,
    progress: ProgressFn,
) -> None:
    """Draw and write the clips of the first held-out prompts, as the student samples.

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
        parts.student,
        adapter,
        dict(enumerate(prompts)),
        [],
        parts.table.sigmas,
        seed=recipe.seed,
        batch_size=_batch_size(recipe),
        keep_clips=SAMPLES,
        at_work=parts.at_work,
        stage="samples",
        progress=progress,
    )
    write_clips(folder, step, shown.clips)
    about = [
        {"prompt": prompt.text, "seed": evaluation_seed(recipe.seed, i, 0)}
        for i, prompt in enumerate(prompts)
    ]
    write_prompts(folder, about)


def finish(
    recipe: DistilRecipe,
    parts: DistilParts,
    accelerator: Accelerator,
    folder: RunFolder,
    adapter: Mapping[str, Tensor],
    progress: ProgressFn,
) -> dict[str, Any]:
    """Export the adapter, evaluate it against the base, write the clips and evaluation.json.

    `base` is the teacher as people sample it: guided, with `evaluation.steps`. `tuned` is the
    student: its few steps, without guidance. Both sides of a prompt have the same noise.

    Args:
        recipe: Resolved.
        parts: Parts of the run.
        accelerator: Processes of the run, which share the held-out prompts.
        folder: The run folder.
        adapter: Adapter to export and evaluate.
        progress: Called after every sampling step.

    Returns:
        The content of evaluation.json, which is written last, as that of a reward tuning.

    Raises:
        TuningError: The disk is full.
    """
    main, size = accelerator.is_main_process, parts.teacher.size
    if main:
        about = training_metadata(recipe, parts.fingerprints)
        export_every_format(recipe.lora, folder.lora, adapter, about)
    oracle = oracle_applies(parts.held_out, size)
    sides = _Sides(recipe, parts, accelerator, folder, oracle, progress).evaluated(adapter)
    base, tuned = sides[0].scores, sides[1].scores
    labels = [judge.label for judge in parts.judges]
    seed = derive_seed(recipe.seed, "bootstrap") % 2**32
    primary = recipe.evaluation.primary or default_primary(labels, [])
    found: dict[str, Any] = {
        "format": FORMAT,
        "start": "base",
        "trained_on": [],
        "never_trained_on": labels,
        **compare(base, tuned, seeds=1, seed=seed, primary=primary),
    }
    if main and oracle:
        with parts.at_work():
            found["rendered"] = rendered_means(
                list(parts.held_out), parts.judges, _batch_size(recipe), accelerator.device
            )
    found["questions"] = question_records(
        parts.held_out, lambda index: evaluation_seed(recipe.seed, index, 0)
    )
    found["sides"] = side_records(
        sides, prompts=len(parts.held_out), seeds=1, seed=seed, primary=primary, decisive=1
    )
    found = without_infinities(found)
    if main:
        write_clips(folder, recipe.train.steps, tuned.clips)
        for index, before in base.clips.items():
            path = folder.samples(0).parent / "before-after" / f"{index:02d}.mp4"
            write_pair(before, tuned.clips[index], path)
        text = json.dumps(found, ensure_ascii=False, indent=2, allow_nan=False)
        atomic_write(folder.evaluation, text.encode())
    return found


@dataclass(frozen=True)
class _Sides:
    """The evaluation of a distillation's sides. Every process calls it; they share the prompts."""

    recipe: DistilRecipe
    parts: DistilParts
    accelerator: Accelerator
    folder: RunFolder
    oracle: bool
    progress: ProgressFn

    def evaluated(self, adapter: Mapping[str, Tensor]) -> list[Side]:
        """Evaluate the base, the student, and the base with as few steps as the student."""
        few, section = self.recipe.student.steps, self.recipe.evaluation
        teacher, student = self.parts.teacher, self.parts.student
        sides = [
            self._side("base", teacher, None, section.steps),
            self._side("tuned", student, adapter, few),
        ]
        if section.few_steps:
            sides.append(self._side(f"base, {few} steps", student, None, few))
            if teacher.guidance.scale != 1:
                sides.append(self._side(f"base, {few} guided steps", teacher, None, few))
        return sides

    def _side(
        self, name: str, sampler: ClipSampler, adapter: Mapping[str, Tensor] | None, steps: int
    ) -> Side:
        recipe, folder = self.recipe, self.folder
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        scores = evaluate(
            sampler,
            adapter,
            {i: p for i, p in enumerate(self.parts.held_out) if i % ranks == rank},
            self.parts.judges,
            sigma_table(steps),
            seed=recipe.seed,
            batch_size=_batch_size(recipe),
            keep_clips=max(recipe.evaluation.clips, SAMPLES),
            oracle=self.oracle,
            at_work=self.parts.at_work,
            stage=f"evaluation of {name}",
            progress=self.progress,
        )
        if ranks > 1:
            scores = merged(gather_object([scores]))
        files = {}
        if self.accelerator.is_main_process:
            kept = {i: clip for i, clip in scores.clips.items() if i < recipe.evaluation.clips}
            files = write_side_clips(folder, recipe.train.steps, name.replace(",", ""), kept)
        shown = {index: clip for index, clip in scores.clips.items() if index < SAMPLES}
        tuned = adapter is not None
        return Side(
            name,
            SideScores(scores.values, shown),
            steps,
            sampler.guidance.scale,
            adapter=folder.lora.name if tuned else None,
            adapter_sha256=None if adapter is None else _sha256(recipe, adapter),
            strength=1.0 if tuned else 0.0,
            against=None if name == "base" else 0,
            clips=files,
        )


def _sha256(recipe: DistilRecipe, adapter: Mapping[str, Tensor]) -> str:
    factors = factors_by_module(adapter)
    state = {path: (down.cpu(), up.cpu()) for path, (down, up) in factors.items()}
    return adapter_sha256(LoraWeights(recipe.lora.rank, recipe.lora.alpha, state))


def _batch_size(recipe: DistilRecipe) -> int:
    return recipe.evaluation.batch_size or recipe.train.batch_size

"""Runs of `reward-tuning distil` as sources of an evaluation: sampled as they were distilled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.inputs.prompts import Prompt, read_prompts
from reward_tuning.schema.locate import prompt_path
from reward_tuning.schema.sections import SamplingSection


def student_sampling(recipe: DistilRecipe) -> SamplingSection:
    """Return the sampling that a distilled adapter was made for: its steps, without guidance."""
    student = recipe.student
    return SamplingSection(
        steps=student.steps,
        guidance_scale=1.0,
        frames=student.frames,
        height=student.height,
        width=student.width,
        negative_prompt=student.negative_prompt,
    )


def own_prompts(recipe: DistilRecipe, count: int | None) -> list[Prompt]:
    """Return the held-out prompts: as many as the distillation evaluates on, or all for a count."""
    every = read_prompts(prompt_path(recipe.prompts.held_out))
    return every[: recipe.evaluation.prompts] if count is None else every


def sampling_notes(
    distilled: Sequence[tuple[Path, DistilRecipe]], steps: int, guidance: float, *, own: bool
) -> list[str]:
    """Return a note for each distilled run: how all sides are sampled, and where that differs.

    Args:
        distilled: Folder and recipe of each.
        steps: The main number of steps.
        guidance: The main guidance scale.
        own: The first of them decided how clips are sampled.
    """
    notes = []
    for path, recipe in distilled:
        few = recipe.student.steps
        if (steps, guidance) != (few, 1.0):
            notes.append(
                f"{path} was distilled for {few} steps without guidance, but every side is sampled "
                f"in {steps} steps at guidance {guidance:g}; --steps {few} --guidance 1 samples as "
                "it was distilled"
            )
        elif own:
            notes.append(
                f"{path}: every side, the base too, is sampled in {few} steps without guidance, as "
                f"it was distilled; `reward-tuning show {path}` compares it with the guided base"
            )
    return notes

"""The two sets of prompts of a run: those it trains on, and those only the evaluation sees."""

from __future__ import annotations

from collections.abc import Sequence

from reward_tuning.errors import TuningError
from reward_tuning.inputs.prompts import Prompt, PromptStream, read_prompts
from reward_tuning.schema.locate import prompt_path
from reward_tuning.schema.recipe import Recipe


def training_prompts(recipe: Recipe) -> PromptStream:
    """Read the prompts to train on, shuffled anew in each epoch by the run's seed.

    Raises:
        TuningError: The file cannot be read or has bad rows.
    """
    return PromptStream(read_prompts(prompt_path(recipe.prompts.train)), recipe.seed)


def held_out_prompts(recipe: Recipe) -> list[Prompt]:
    """Read the prompts of the evaluation.

    Raises:
        TuningError: The file cannot be read, has bad rows or has too few prompts.
    """
    return evaluation_prompts(read_prompts(prompt_path(recipe.prompts.held_out)), recipe)


def evaluation_prompts(prompts: Sequence[Prompt], recipe: Recipe) -> list[Prompt]:
    """Return the first `evaluation.prompts` of the held-out prompts.

    Raises:
        TuningError: The file has fewer, or the recipe asks for fewer than two.
    """
    wanted = recipe.evaluation.prompts
    if wanted < 2:
        raise TuningError(
            f"evaluation.prompts: got {wanted}; needs at least 2, because one prompt gives no "
            "confidence interval (32 is the default)"
        )
    if len(prompts) < wanted:
        raise TuningError(
            f"evaluation.prompts: got {wanted}, but prompts.held_out has {len(prompts)}; set "
            f"evaluation.prompts={len(prompts)}, or give a file with more prompts (at most "
            f"{len(prompts)} now)"
        )
    return list(prompts[:wanted])

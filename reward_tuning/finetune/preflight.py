"""Everything that `finetune` refuses before it loads anything large."""

from __future__ import annotations

import torch

from base_model.memory.quantise import require as require_quantisation
from reward_tuning.finetune.parts import look_at_clips
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.progress import ProgressFn, silent
from reward_tuning.runs.findings import Findings, check_lora
from reward_tuning.runs.optimiser import require_optimiser
from reward_tuning.sampling.generator_parts import (
    folder_if_here,
    generator_kind,
)


def check_finetune(
    recipe: FinetuneRecipe, device: torch.device, progress: ProgressFn = silent
) -> Findings:
    """Look at everything that `finetune` refuses before it loads; see `check_run`."""
    found = Findings()
    with found.told():
        if recipe.generator.quantise is not None:
            require_quantisation(recipe.generator.quantise, device)
    with found.told():
        require_optimiser(recipe.train, device)
    channels: int | None = recipe.generator.channels
    root = None
    with found.told("generator.checkpoint"):
        root = folder_if_here(recipe.generator)
        if root is not None:
            channels = channels or generator_kind(recipe.generator).channels
    check_lora(found, recipe.lora, root, progress)
    with found.told():
        look_at_clips(recipe, channels, progress)
    return found

"""The judges that are never trained on, loaded only while they measure."""

from __future__ import annotations

import torch

from base_model.memory.modes import MODES
from base_model.memory.offload import Offload
from reward_tuning.judges.judge import Judge
from reward_tuning.judges.loading import load_judges
from reward_tuning.judges.offload import judge_modules
from reward_tuning.judges.shared_encoder import loaded_from_folder
from reward_tuning.schema.recipe import Recipe


def held_out_judges(
    recipe: Recipe, offload: Offload, device: torch.device
) -> tuple[list[Judge], Offload]:
    """Load the judges of `evaluation.held_out_rewards`.

    Args:
        recipe: Resolved.
        offload: What rests on the CPU between uses so far (`RunParts.offload`).
        device: Device that judges work on.

    Returns:
        The judges, and the offload with them, where the recipe's memory mode lets them rest.
    """
    sections = loaded_from_folder(recipe, recipe.evaluation.held_out_rewards)
    judges = load_judges(sections, recipe.sampling.frames, device)
    if MODES[recipe.generator.memory].parts_rest:
        offload = offload.joined(Offload(judge_modules(judges), device))
    return judges, offload

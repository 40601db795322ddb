"""The generator's text encoder as a judge: a whole Qwen2-VL, in memory once for both uses.

A critic with `checkpoint: generator` uses that model. Where no generator is loaded, or its encoder
has been released, the same critic is loaded from the checkpoint's folder (`loaded_from_folder`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from base_model.loading.checkpoint import load_text_encoder
from base_model.networks.prompt_encoder import PromptEncoder
from reward_tuning.sampling.generator_parts import generator_folder
from reward_tuning.schema.judge_parts import JudgeSection

if TYPE_CHECKING:  # what runs, runs without recipes
    from reward_tuning.schema.recipe import Recipe

AnyJudge = TypeVar("AnyJudge", bound=JudgeSection)


@dataclass(frozen=True)
class SharedEncoder:
    """A text encoder that encodes prompts and judges clips.

    Attributes:
        folder: Folder of the generator's checkpoint.
        encoder: The model with its tokenizer, frozen, on the device of the run.
    """

    folder: Path
    encoder: PromptEncoder


def shared_encoder(
    recipe: Recipe, judges: Sequence[JudgeSection], device: torch.device
) -> SharedEncoder | None:
    """Load the generator's text encoder if one of these judges uses it.

    Args:
        recipe: Resolved recipe; its generator's dtype is that of the encoder.
        judges: Judges of the recipe.
        device: Device that the encoder works on.

    Returns:
        The encoder; None if no judge uses it.

    Raises:
        GeneratorError: The checkpoint has no whole text encoder.
    """
    if not any(judge.of_generator for judge in judges):
        return None
    folder = encoder_folder(recipe)
    dtype = getattr(torch, recipe.generator.dtype)
    return SharedEncoder(folder, load_text_encoder(folder, dtype=dtype, device=device))


def loaded_from_folder(recipe: Recipe, judges: Sequence[AnyJudge]) -> list[AnyJudge]:
    """Return the judges for a place without a text encoder: each loads its weights from the folder.

    Raises:
        GeneratorError: The checkpoint has no text encoder.
    """
    return [
        judge.model_copy(update={"checkpoint": str(encoder_folder(recipe))})
        if judge.of_generator
        else judge
        for judge in judges
    ]


def encoder_folder(recipe: Recipe) -> Path:
    """Return the folder of the generator's checkpoint, with `text_encoder/` and `tokenizer/`.

    Raises:
        GeneratorError: There is no such folder.
    """
    return generator_folder(recipe.generator, text_encoder=True)

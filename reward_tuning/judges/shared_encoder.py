"""The generator's text encoder as a judge: a whole Qwen2-VL, in memory once for both.

A critic with `checkpoint: generator` is that model. Where no generator is loaded, or its encoder is
gone by then, the same critic is loaded from the checkpoint's folder (`standing_alone`).
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
        folder: Of the generator's checkpoint.
        encoder: The model with its tokenizer, frozen, on the device of the run.
    """

    folder: Path
    encoder: PromptEncoder


def shared_encoder(
    recipe: Recipe, judges: Sequence[JudgeSection], device: torch.device
) -> SharedEncoder | None:
    """Load the generator's text encoder, if one of these judges is it.

    Args:
        recipe: Resolved; its generator's dtype is the encoder's.
        judges: Of the recipe.
        device: Where it works.

    Returns:
        None where no judge asks for it.

    Raises:
        GeneratorError: The checkpoint has no whole text encoder.
    """
    if not any(judge.of_generator for judge in judges):
        return None
    folder = encoder_folder(recipe)
    dtype = getattr(torch, recipe.generator.dtype)
    return SharedEncoder(folder, load_text_encoder(folder, dtype=dtype, device=device))


def standing_alone(recipe: Recipe, judges: Sequence[AnyJudge]) -> list[AnyJudge]:
    """The same judges for a place without a text encoder: each loads its weights from the folder.

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
    """The generator's checkpoint on disk, with `text_encoder/` and `tokenizer/`.

    Raises:
        GeneratorError: They are not there.
    """
    return generator_folder(recipe.generator, text_encoder=True)

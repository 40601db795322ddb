"""The parts of a fine-tuning with weights that nobody trained, and clips without pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from base_model.training.input_channels import with_input_channels
from reward_tuning.estimate.random_parts import random_generator, random_states
from reward_tuning.estimate.shapes import Shape
from reward_tuning.finetune.batches import BatchOrder, ClipBatch
from reward_tuning.finetune.encoding import EMPTY, BatchEncoder
from reward_tuning.finetune.metadata import ClipRow
from reward_tuning.finetune.parts import FinetuneParts
from reward_tuning.finetune.pixels import ClipReader
from reward_tuning.finetune.posterior_cache import PosteriorCache
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.sections import DropoutSection
from reward_tuning.finetune.survey import Survey, UsableClip
from reward_tuning.finetune.trained import trained_part
from reward_tuning.finetune.video_files import ClipInfo
from reward_tuning.progress import silent
from reward_tuning.seeds import derive_seed


def random_finetune_parts(
    recipe: FinetuneRecipe,
    shape: Shape,
    device: torch.device,
    training: ClipBatch,
    held_out: ClipBatch | None,
) -> FinetuneParts:
    """Return what a step of a fine-tuning works with, without any file.

    Args:
        recipe: Resolved.
        shape: Shapes of the networks.
        device: Device of the step; `meta` for shapes without values.
        training: The batch that every step trains on.
        held_out: The clip that is measured; None for none.
    """
    generator = random_generator(recipe.generator, shape, device)
    if recipe.generator.channels is not None:
        with_input_channels(generator.transformer, recipe.generator.channels)
    trained = trained_part(
        generator.transformer,
        recipe.lora,
        seed=derive_seed(recipe.seed, "adapter"),
        progress=silent,
    )
    if recipe.train.gradient_checkpointing:
        generator.transformer.enable_gradient_checkpointing()
    states = random_states([EMPTY], shape)

    def encoder(of: ClipBatch, dropout: DropoutSection) -> BatchEncoder:
        reader = _Grey(of, recipe.data.stride)
        cache = PosteriorCache(None, "")
        return BatchEncoder(
            generator, reader, states, cache, recipe.data, dropout, recipe.masks, recipe.seed
        )

    return FinetuneParts(
        generator,
        trained,
        _Always(training),
        encoder(training, recipe.dropout),
        None if held_out is None else _Always(held_out),
        None if held_out is None else encoder(held_out, DropoutSection()),
        Survey((), ()),
        {},
    )


class _Always(BatchOrder):
    """The same batch at every position."""

    def __init__(self, batch: ClipBatch) -> None:
        self._batch = batch
        self.epoch = 1

    def __call__(self, number: int) -> ClipBatch:
        """Return the batch."""
        return self._batch


class _Grey(ClipReader):
    """Clips without a file: grey pixels, a grey control clip, a camera that rests."""

    def __init__(self, batch: ClipBatch, stride: int) -> None:
        info = ClipInfo((batch.frames - 1) * stride + 1, batch.height, batch.width)
        row = ClipRow(Path("grey"), EMPTY, "video")
        clips: Sequence[UsableClip] = [UsableClip(row, info)] * (max(batch.clips) + 1)
        super().__init__(clips, stride)

    def frames(self, batch: ClipBatch, index: int) -> Tensor:
        """Return `(f, 3, H, W)`."""
        return self._filled(batch.frames, 3, batch.height, batch.width)

    def control(self, batch: ClipBatch, index: int) -> Tensor | None:
        """Return `(f, 3, H, W)`."""
        return self.frames(batch, index)

    def rays(self, batch: ClipBatch, index: int) -> Tensor | None:
        """Return `(6, f, H, W)`."""
        return self._filled(6, batch.frames, batch.height, batch.width)

    def identity(self, batch: ClipBatch, index: int, *, control: bool = False) -> list[Any]:
        """Return nothing: no posterior is kept."""
        return []

    def _filled(self, *shape: int) -> Tensor:
        return torch.full(shape, 0.5)

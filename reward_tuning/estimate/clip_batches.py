"""The batches of clips that a fine-tuning draws, before any is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from base_model.core.tokens import token_count
from reward_tuning.finetune.batches import BatchOrder, ClipBatch
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.training_set import batch_sizes, find_training_set, held_out_sizes
from reward_tuning.finetune.video_files import ClipInfo
from reward_tuning.progress import ProgressFn, silent

MOST_DRAWN = 1000
"""Batches that are drawn, spread over the run."""


@dataclass(frozen=True)
class ClipBatches:
    """What a fine-tuning trains on and measures.

    Attributes:
        training: A batch of each shape that was drawn, and how often; the smallest first.
        held_out: The held-out clips, one a batch, the smallest first; empty for none.
        notes: What was assumed.
    """

    training: Sequence[tuple[ClipBatch, int]]
    held_out: Sequence[ClipBatch]
    notes: Sequence[str]

    @property
    def largest(self) -> list[ClipBatch]:
        """The batch with most tokens, and that with the largest clip, where it is another one."""
        batches = [batch for batch, _ in self.training]
        most, clip = batches[-1], max(batches, key=_clip_tokens)
        return [most] if _clip_tokens(clip) == _clip_tokens(most) else [most, clip]

    def spread(self, most: int) -> list[ClipBatch]:
        """Return batches of equal shares of the run, in the order of their tokens."""
        every = [batch for batch, count in self.training for _ in range(count)]
        if len(self.training) <= most and len({count for _, count in self.training}) == 1:
            return [batch for batch, _ in self.training]
        return [every[(2 * i + 1) * len(every) // (2 * most)] for i in range(most)]


def clip_batches(
    recipe: FinetuneRecipe, channels: int, progress: ProgressFn = silent
) -> ClipBatches:
    """Draw the batches of a run.

    Where the list of clips is not on this disk, clips of full length and of the largest of
    `data.sides`, square, stand for them.

    Args:
        recipe: Resolved.
        channels: Input channels of the transformer to train.
        progress: Called while the clips are checked.

    Raises:
        TuningError: The clips that are there cannot be used.
    """
    data, notes = recipe.data, []
    if Path(data.metadata).is_file():
        found = find_training_set(recipe, channels, progress)
        order, held_out = found.order, [clip.info for clip in found.held_out]
    else:
        notes.append(
            f"data.metadata: there is no {data.metadata}; square videos of full length and the "
            "largest of data.sides are counted"
        )
        info = ClipInfo((data.frames - 1) * data.stride + 1, max(data.sides), max(data.sides))
        order = BatchOrder([("video", info)], recipe.train.batch_size, batch_sizes(recipe), 0)
        held_out = [info] * data.held_out
    if data.cache is not None:
        notes.append("data.cache: every batch counts as encoded anew")
    count = recipe.train.steps * recipe.train.gradient_accumulation
    drawn = min(count, MOST_DRAWN)
    batches = [order(i * count // drawn) for i in range(drawn)]
    often = Counter(_shape(batch) for batch in batches)
    training = [(next(b for b in batches if _shape(b) == shape), n) for shape, n in often.items()]
    training.sort(key=lambda one: (_tokens(one[0]), _clip_tokens(one[0])))
    measured = [_held_out_batch(recipe, info) for info in held_out]
    measured.sort(key=_tokens)
    return ClipBatches(training, measured, notes)


def _held_out_batch(recipe: FinetuneRecipe, info: ClipInfo) -> ClipBatch:
    """Return a held-out clip as it is measured: alone, at full length and the first side."""
    return replace(BatchOrder([("video", info)], 1, held_out_sizes(recipe), 0)(0), copies=1)


def _shape(batch: ClipBatch) -> tuple[int, ...]:
    return len(batch.clips), batch.copies, batch.frames, batch.height, batch.width


def _clip_tokens(batch: ClipBatch) -> int:
    return token_count(batch.frames, batch.height, batch.width)


def _tokens(batch: ClipBatch) -> int:
    return len(batch.clips) * batch.copies * _clip_tokens(batch)

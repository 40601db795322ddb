"""The batches of a training set and their sizes, as a function of seed and position.

Clips of one kind and nearest aspect ratio form a group; a batch takes its clips from one group, so
all of them have one shape. The order of an epoch is drawn from the seed and the epoch's number
alone. Nothing is kept between batches, so batch 1000 of a resumed run is that of the uninterrupted
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from base_model.core.family import FAMILY
from base_model.core.tokens import (
    FrameRule,
    frames_under,
    nearest_bucket,
    token_count,
)
from reward_tuning.errors import TuningError
from reward_tuning.finetune.metadata import ClipKind
from reward_tuning.finetune.video_files import ClipInfo
from reward_tuning.seeds import derive_generator

FULL_LENGTH = 0.9
"""Probability of full length where lengths are drawn; the published value."""
LARGEST_GROWTH = 1.25
"""Limit of the enlargement where sizes adapt to the clips; the published value."""


@dataclass(frozen=True)
class BatchSizes:
    """The shapes that batches may have.

    Attributes:
        sides: Square roots of the pixel counts; one is drawn for each batch of videos.
        image_sides: The same for batches of pictures.
        frames: Most frames of a video, 4k + 1.
        stride: Take every stride-th frame of a file.
        tokens: Budget (3328, 13312, 53248) that shortens large clips; None for none.
        frame_rule: See `base_model.core.tokens.frames_under`.
        draw_frames: Draw a shorter length for one batch in ten.
        adapt: Skip sides that would enlarge the smallest clip of the batch by a quarter or more.
    """

    sides: tuple[int, ...]
    image_sides: tuple[int, ...]
    frames: int = FAMILY.longest_clip
    stride: int = 1
    tokens: int | None = None
    frame_rule: FrameRule = "report"
    draw_frames: bool = False
    adapt: bool = False


@dataclass(frozen=True)
class ClipBatch:
    """One batch of one device, before any file is read.

    Attributes:
        number: Position in the endless sequence of batches.
        clips: Indices of its clips in the training set.
        starts: First frame of each clip.
        frames: Frames of each clip, 4k + 1.
        height: Height in pixels.
        width: Width in pixels.
        copies: Repetitions of the batch, each with its own noise: 4 or 2 for clips so small that a
            step would be mostly overhead, as in the published trainer.
    """

    number: int
    clips: tuple[int, ...]
    starts: tuple[int, ...]
    frames: int
    height: int
    width: int
    copies: int = 1


class BatchOrder:
    """The endless sequence of batches.

    Args:
        clips: Kind and size of each clip of the training set.
        batch_size: Clips in a batch.
        sizes: Shapes that batches may have.
        seed: Seed of every draw.

    Attributes:
        epoch: Batches until every clip has been seen; the last one of a group is filled up with
            clips from its beginning.

    Raises:
        TuningError: There is no clip.
    """

    def __init__(
        self,
        clips: Sequence[tuple[ClipKind, ClipInfo]],
        batch_size: int,
        sizes: BatchSizes,
        seed: int,
    ) -> None:
        if not clips:
            raise TuningError("the training set has no clip")
        self._clips = clips
        self._batch_size = batch_size
        self._sizes = sizes
        self._seed = seed
        groups: dict[tuple[ClipKind, tuple[int, int]], list[int]] = {}
        for place, (kind, info) in enumerate(clips):
            # a video too short for two latents is trained on as a picture
            of: ClipKind = "image" if self._length(info) == 1 else kind
            groups.setdefault((of, nearest_bucket(info.height, info.width)), []).append(place)
        self._groups = dict(sorted(groups.items()))
        self.epoch = sum(-(-len(group) // batch_size) for group in self._groups.values())

    def __call__(self, number: int) -> ClipBatch:
        """Return the batch at a position of the sequence, counted from 0."""
        epoch, index = divmod(number, self.epoch)
        (kind, ratio), chosen = self._epoch(epoch)[index]
        draw = derive_generator(self._seed, "batch", number)
        height, width = self._size(kind, ratio, chosen, draw)
        frames = self._frames(kind, chosen, (height, width), draw)
        starts = tuple(self._start(place, frames, draw) for place in chosen)
        return ClipBatch(
            number, chosen, starts, frames, height, width, self._copies(frames, height, width)
        )

    def _epoch(self, epoch: int) -> list[tuple[tuple[ClipKind, tuple[int, int]], tuple[int, ...]]]:
        draw = derive_generator(self._seed, "epoch", epoch)
        batches = []
        for key, group in self._groups.items():
            order = [group[i] for i in torch.randperm(len(group), generator=draw).tolist()]
            while len(order) % self._batch_size:
                order.append(order[len(order) - len(group)])  # from the group's beginning
            for first in range(0, len(order), self._batch_size):
                batches.append((key, tuple(order[first : first + self._batch_size])))
        return [batches[i] for i in torch.randperm(len(batches), generator=draw).tolist()]

    def _size(
        self,
        kind: ClipKind,
        ratio: tuple[int, int],
        chosen: Sequence[int],
        draw: torch.Generator,
    ) -> tuple[int, int]:
        sides = sorted(self._sizes.sides if kind == "video" else self._sizes.image_sides)
        if self._sizes.adapt:
            infos = [self._clips[place][1] for place in chosen]
            own = min((info.height * info.width) ** 0.5 for info in infos)
            sides = [side for side in sides if side < LARGEST_GROWTH * own] or sides[:1]
        side = sides[int(torch.randint(len(sides), (), generator=draw))]
        return nearest_bucket(*ratio, side)

    def _frames(
        self,
        kind: ClipKind,
        chosen: Sequence[int],
        size: tuple[int, int],
        draw: torch.Generator,
    ) -> int:
        if kind == "image":
            return 1
        sizes = self._sizes
        most = min(self._length(self._clips[place][1]) for place in chosen)
        if sizes.tokens is not None:
            most = min(most, frames_under(sizes.tokens, *size, sizes.frame_rule))
        lengths = range(FAMILY.time_stride + 1, most + 1, FAMILY.time_stride)
        if not sizes.draw_frames or len(lengths) < 2:
            return most
        if float(torch.rand((), generator=draw)) < FULL_LENGTH:
            return most
        return lengths[int(torch.randint(len(lengths) - 1, (), generator=draw))]

    def _length(self, info: ClipInfo) -> int:
        """Return how many frames a clip gives at the stride, at most `frames`, 4k + 1."""
        there = (info.frames - 1) // self._sizes.stride + 1
        return FAMILY.fitting_frames(min(there, self._sizes.frames))

    def _start(self, place: int, frames: int, draw: torch.Generator) -> int:
        free = self._clips[place][1].frames - ((frames - 1) * self._sizes.stride + 1)
        return int(torch.randint(free + 1, (), generator=draw))

    def _copies(self, frames: int, height: int, width: int) -> int:
        budget, tokens = self._sizes.tokens, token_count(frames, height, width)
        if budget is None or tokens * 4 > budget:
            return 1
        return 4 if tokens * 16 <= budget else 2

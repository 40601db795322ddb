"""Read a batch's files to pixels of one shape."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from base_model.conditions.camera import plucker_rays, read_pose_file
from reward_tuning.files.frame_files import fitted
from reward_tuning.files.pictures import PICTURE_SUFFIXES
from reward_tuning.finetune.batches import ClipBatch
from reward_tuning.finetune.metadata import ClipKind
from reward_tuning.finetune.survey import POSES, UsableClip
from reward_tuning.finetune.video_files import read_part


class ClipReader:
    """Reads the clips of a training set, scaled and centre-cropped.

    Args:
        clips: Clips of the training set.
        stride: Take every stride-th frame of a file.
    """

    def __init__(self, clips: Sequence[UsableClip], stride: int) -> None:
        self.clips = clips
        self.stride = stride

    def frames(self, batch: ClipBatch, index: int) -> Tensor:
        """Return one clip of a batch: `(f, 3, H, W)` float32 in [0, 1].

        Raises:
            TuningError: Its file has changed since it was checked.
        """
        row = self.clips[batch.clips[index]].row
        return self._read(row.file, row.kind, batch, index)

    def control(self, batch: ClipBatch, index: int) -> Tensor | None:
        """Return its control clip, `(f, 3, H, W)` in [0, 1]; None where its row has none.

        Raises:
            TuningError: Its file has changed since it was checked.
        """
        control = self.clips[batch.clips[index]].row.control
        if control is None or control.suffix.lower() == POSES:
            return None
        kind: ClipKind = "image" if control.suffix.lower() in PICTURE_SUFFIXES else "video"
        return self._read(control, kind, batch, index)

    def rays(self, batch: ClipBatch, index: int) -> Tensor | None:
        """Return the rays of its camera, `(6, f, H, W)`; None where its row has no pose file.

        They are relative to the first frame that is taken, not to the first of the file.

        Raises:
            GeneratorError: The pose file is wrong.
        """
        control = self.clips[batch.clips[index]].row.control
        if control is None or control.suffix.lower() != POSES:
            return None
        first = batch.starts[index]
        poses = read_pose_file(control)[first :: self.stride][: batch.frames]
        return plucker_rays(poses, batch.height, batch.width).permute(3, 0, 1, 2)

    def identity(self, batch: ClipBatch, index: int, *, control: bool = False) -> list[object]:
        """Return everything that decides the pixels of `frames` or `control`, as a cache key."""
        row = self.clips[batch.clips[index]].row
        file = row.control if control else row.file
        assert file is not None
        part = [batch.starts[index], batch.frames, self.stride, batch.height, batch.width]
        return [READING, _content(file), *part]

    def _read(self, file: Path, kind: ClipKind, batch: ClipBatch, index: int) -> Tensor:
        found = read_part(file, kind, batch.starts[index], batch.frames, self.stride)
        return fitted(found, batch.height, batch.width)


READING = "stored frames"
"""How frames are counted; part of the key, so that posteriors of another counting are not used."""
PIECE = 2**16
"""Bytes hashed at either end: hashing whole videos would take longer than reading their frames."""


def _content(file: Path) -> list[object]:
    """Return size and a hash of both ends: two encodings of one length differ there in practice."""
    with file.open("rb") as opened:
        head = opened.read(PIECE)
        size = opened.seek(0, 2)
        opened.seek(max(0, size - PIECE))
        tail = opened.read(PIECE)
    return [size, hashlib.sha256(head + tail).hexdigest()]


def reference_frame(frames: Tensor, which: str, draw: torch.Generator) -> Tensor | None:
    """Choose the reference image of one clip.

    Args:
        frames: `(f, 3, H, W)`; a single frame has no reference, as in the published model.
        which: `first`, `random` or `none`.
        draw: Generator of the random choice.

    Returns:
        `(3, H, W)`, or None.
    """
    if which == "none" or len(frames) == 1:
        return None
    place = 0 if which == "first" else int(torch.randint(len(frames), (), generator=draw))
    return frames[place]

"""Sample clips on the disk: `samples/step-NNNNNN/NN.mp4`, and the prompt of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from reward_tuning.files.atomic_write import atomic_write
from reward_tuning.files.clips import side_by_side, write_clip
from reward_tuning.runs.folder import RunFolder

SMALL = 256  # pixels; narrower clips are enlarged, or a player shows them as a stamp


def write_clips(folder: RunFolder, step: int, clips: Mapping[int, Tensor]) -> None:
    """Write the clips `(f, 3, H, W)` of a step, each under its number.

    Raises:
        TuningError: The disk is full.
    """
    for index, clip in clips.items():
        write_clip(clip, folder.samples(step) / f"{index:02d}.mp4", enlarge=_enlarge(clip))


def write_pair(left: Tensor, right: Tensor, path: Path) -> None:
    """Write two clips of one shape next to each other, enlarged as one alone would be.

    Raises:
        TuningError: The disk is full.
    """
    write_clip(side_by_side(left, right), path, enlarge=_enlarge(left))


def write_prompts(folder: RunFolder, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `samples/prompts.json`: `file` and the keys of `rows` for each clip, in order.

    Raises:
        TuningError: The disk is full.
    """
    about = [{"file": f"{i:02d}.mp4", **row} for i, row in enumerate(rows)]
    text = json.dumps(about, ensure_ascii=False, indent=1)
    atomic_write(folder.samples(0).parent / "prompts.json", text.encode())


def _enlarge(clip: Tensor) -> int:
    return max(1, SMALL // clip.shape[3])

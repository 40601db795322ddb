"""Clips of a run on the disk: samples with their prompts, and those of the evaluation.

`samples/step-NNNNNN/NN.mp4` and `evaluation/step-NNNNNN/SIDE/NN.mp4`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from reward_tuning.files.atomic_write import atomic_write
from reward_tuning.files.clips import side_by_side, write_clip
from reward_tuning.files.json_text import parsed_json
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.tracker_parts import SampleClip

SAMPLES = 4  # clips of a set: enough to see a trend
SMALL = 256  # pixels; narrower clips are enlarged, or a player shows them as a stamp


def write_clips(folder: RunFolder, step: int, clips: Mapping[int, Tensor]) -> None:
    """Write the clips `(f, 3, H, W)` of a step, each under its number.

    Raises:
        TuningError: The disk is full.
    """
    for index, clip in clips.items():
        write_clip(clip, folder.samples(step) / f"{index:02d}.mp4", enlarge=enlargement(clip))


def write_side_clips(
    folder: RunFolder, step: int, side: str, clips: Mapping[int, Tensor]
) -> dict[int, str]:
    """Write the clips `(f, 3, H, W)` of a side of the evaluation after a step.

    Returns:
        The number of each clip to its path, relative to the run folder.

    Raises:
        TuningError: The disk is full.
    """
    place = folder.evaluation_clips / f"step-{step:06d}" / side.replace(" ", "-")
    found = {}
    for index, clip in sorted(clips.items()):
        path = place / f"{index:02d}.mp4"
        write_clip(clip, path, enlarge=enlargement(clip))
        found[index] = path.relative_to(folder.root).as_posix()
    return found


def write_pair(left: Tensor, right: Tensor, path: Path) -> None:
    """Write two clips of one shape next to each other, enlarged as one alone would be.

    Raises:
        TuningError: The disk is full.
    """
    write_clip(side_by_side(left, right), path, enlarge=enlargement(left))


def write_prompts(folder: RunFolder, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `samples/prompts.json`: `file` and the keys of `rows` for each clip, in order.

    Raises:
        TuningError: The disk is full.
    """
    about = [{"file": f"{i:02d}.mp4", **row} for i, row in enumerate(rows)]
    text = json.dumps(about, ensure_ascii=False, indent=1)
    atomic_write(folder.samples(0).parent / "prompts.json", text.encode())


def sample_clips(folder: RunFolder, step: int, *, pairs: bool = False) -> list[SampleClip]:
    """List the clips of a step that are in the run folder, in order, each with its prompt.

    Args:
        folder: The run folder.
        step: Optimiser steps done.
        pairs: Add those of base and tuned model next to each other, if the run has written any.
    """
    root = folder.samples(0).parent
    about = root / "prompts.json"
    rows = parsed_json(about.read_text(encoding="utf-8")) if about.exists() else []
    prompts = {row["file"]: str(row.get("prompt", "")) for row in rows}
    series = {"samples": folder.samples(step)}
    if pairs:
        series["before-after"] = root / "before-after"
    return [
        SampleClip(f"{name}/{path.stem}", path, prompts.get(path.name, ""))
        for name, place in series.items()
        for path in sorted(place.glob("[0-9]*.mp4"))
    ]


def enlargement(clip: Tensor) -> int:
    """Return the factor by which a clip `(f, 3, H, W)` is enlarged for people."""
    return max(1, SMALL // clip.shape[3])

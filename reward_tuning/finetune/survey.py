"""A check of every file of a training set, before anything is loaded: which of them can be used.

Large sets contain files that cannot be read. These are skipped, counted and named, never silently.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from base_model.conditions.camera import read_pose_file
from base_model.errors import GeneratorError
from reward_tuning.errors import TuningError, first_lines
from reward_tuning.files.pictures import PICTURE_SUFFIXES
from reward_tuning.finetune.metadata import ClipRow
from reward_tuning.finetune.probe_cache import ProbeCache
from reward_tuning.finetune.video_files import ClipInfo
from reward_tuning.progress import ProgressEvent, ProgressFn, silent

STAGE = "checking clips"
MAX_REPORTED = 10  # files in one message
POSES = ".txt"


@dataclass(frozen=True)
class UsableClip:
    """A row whose files can be read.

    Attributes:
        row: Row of the list.
        info: Length and size of its file.
    """

    row: ClipRow
    info: ClipInfo


@dataclass(frozen=True)
class Survey:
    """The content of a training set.

    Attributes:
        clips: Clips that can be used, in the order of the list.
        broken: Path and reason of each file that cannot.
    """

    clips: tuple[UsableClip, ...]
    broken: tuple[tuple[Path, str], ...]

    def warning(self) -> str:
        """Return how many files are broken, and which; empty for none."""
        if not self.broken:
            return ""
        rows = len(self.clips) + len(self.broken)
        lines = [f"{len(self.broken)} of {rows} clips are left out, for they cannot be used:"]
        reasons = first_lines([reason for _, reason in self.broken], MAX_REPORTED)
        lines += [f"  {reason}" for reason in reasons]
        return "\n".join(lines)

    def report(self) -> str:
        """Return all of it as JSON: `{"usable": n, "broken": [{"file": ..., "reason": ...}]}`."""
        broken = [{"file": str(path), "reason": reason} for path, reason in self.broken]
        return json.dumps(
            {"usable": len(self.clips), "broken": broken}, ensure_ascii=False, indent=1
        )


def survey(
    rows: Sequence[ClipRow],
    *,
    controls: bool = False,
    cache: str | Path | None = None,
    progress: ProgressFn = silent,
) -> Survey:
    """Check every file.

    Args:
        rows: Rows of the list.
        controls: Check the control files, too, which the model uses.
        cache: Folder that keeps the results, so that unchanged files are not decoded again; None
            keeps nothing.
        progress: Receives an event after each row.

    Raises:
        TuningError: No clip can be used, or the cache cannot be written.
    """
    clips: list[UsableClip] = []
    broken: list[tuple[Path, str]] = []
    probes = ProbeCache(cache)
    try:
        for done, row in enumerate(rows, 1):
            checked = row.file
            try:
                info = probes(row.file, row.kind)
                if controls and row.control is not None:
                    checked = row.control
                    _check_control(row, info, probes)
            except TuningError as error:
                broken.append((checked, str(error)))
            else:
                clips.append(UsableClip(row, info))
            probes.save_now_and_then()
            progress(ProgressEvent(STAGE, done, len(rows)))
    finally:  # also where the user stops it: hours of decoding are kept
        probes.save()
    found = Survey(tuple(clips), tuple(broken))
    if not clips:
        raise TuningError(f"data.metadata: no clip can be used.\n{found.warning()}")
    return found


def _check_control(row: ClipRow, info: ClipInfo, probes: ProbeCache) -> None:
    """Check that a control file can be read and is as long as its clip.

    Raises:
        TuningError: It cannot, or it is not.
    """
    control = row.control
    assert control is not None
    if control.suffix.lower() == POSES:
        try:
            poses = len(read_pose_file(control))
        except GeneratorError as error:
            raise TuningError(str(error)) from error
        if poses < info.frames:
            raise TuningError(
                f"poses {control}: {poses} poses are fewer than the {info.frames} frames of "
                f"{row.file}"
            )
        return
    found = probes(control, "image" if control.suffix.lower() in PICTURE_SUFFIXES else "video")
    if found.frames < info.frames:
        raise TuningError(
            f"control {control}: {found.frames} frames are fewer than the {info.frames} of "
            f"{row.file}"
        )

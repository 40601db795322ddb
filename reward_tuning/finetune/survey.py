"""A look at every file of a training set before anything is loaded: which can be used.

Large sets hold files that cannot be read. They are left out, counted and named, never in silence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reward_tuning.errors import TuningError, first_lines
from reward_tuning.files.pictures import PICTURES
from reward_tuning.finetune.look_cache import LookCache
from reward_tuning.finetune.metadata import ClipRow
from reward_tuning.finetune.video_files import ClipInfo
from reward_tuning.progress import ProgressEvent, ProgressFn, silent

STAGE = "looking at clips"
MAX_REPORTED = 10  # files in one message
POSES = ".txt"


@dataclass(frozen=True)
class UsableClip:
    """A row whose files can be read.

    Attributes:
        row: Of the list.
        info: Of its file.
    """

    row: ClipRow
    info: ClipInfo


@dataclass(frozen=True)
class Survey:
    """What a training set holds.

    Attributes:
        clips: That can be used, in the list's order.
        broken: Path and reason of each file that cannot.
    """

    clips: tuple[UsableClip, ...]
    broken: tuple[tuple[Path, str], ...]

    def warning(self) -> str:
        """The warning: how many files are broken, and which; empty where none is."""
        if not self.broken:
            return ""
        rows = len(self.clips) + len(self.broken)
        lines = [f"{len(self.broken)} of {rows} clips are left out, for they cannot be used:"]
        reasons = first_lines([reason for _, reason in self.broken], MAX_REPORTED)
        lines += [f"  {reason}" for reason in reasons]
        return "\n".join(lines)

    def report(self) -> str:
        """All of it, as JSON: `{"usable": n, "broken": [{"file": ..., "reason": ...}]}`."""
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
    """Look at every file.

    Args:
        rows: Of the list.
        controls: Whether the control files are used; a pose file is only looked for.
        cache: Folder that keeps what was found, so that files which have not changed are not
            decoded again; None keeps nothing.
        progress: Told after each row.

    Raises:
        TuningError: Not one clip can be used, or the cache cannot be written.
    """
    clips: list[UsableClip] = []
    broken: list[tuple[Path, str]] = []
    look = LookCache(cache)
    try:
        for done, row in enumerate(rows, 1):
            looking = row.file
            try:
                info = look(row.file, row.kind)
                if controls and row.control is not None:
                    looking = row.control
                    _look_at_control(row, info, look)
            except TuningError as error:
                broken.append((looking, str(error)))
            else:
                clips.append(UsableClip(row, info))
            look.save_now_and_then()
            progress(ProgressEvent(STAGE, done, len(rows)))
    finally:
        look.save()
    found = Survey(tuple(clips), tuple(broken))
    if not clips:
        raise TuningError(f"data.metadata: no clip can be used.\n{found.warning()}")
    return found


def _look_at_control(row: ClipRow, info: ClipInfo, look: LookCache) -> None:
    control = row.control
    assert control is not None
    if control.suffix.lower() == POSES:
        from base_model.conditions.camera import read_pose_file
        from base_model.errors import GeneratorError

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
    found = look(control, "image" if control.suffix.lower() in PICTURES else "video")
    if found.frames < info.frames:
        raise TuningError(
            f"control {control}: {found.frames} frames are fewer than the {info.frames} of "
            f"{row.file}"
        )

"""The tracker for TensorBoard: event files in the run folder."""

from __future__ import annotations

import importlib
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from base_model.core.family import FAMILY
from reward_tuning.files.clips import read_clip
from reward_tuning.files.gif_file import gif_bytes
from reward_tuning.runs.tracker_parts import SampleClip, Table, TrackerStart

EVENTS = "events.out.tfevents."
"""What the names of event files begin with; the second in which a writer opened them follows."""
AFTER_HOSTS = "~"
"""Sorts after the letters and digits of the host's name, which follows that second."""

_MOVED = re.compile(rf"\d{{10}}\.{AFTER_HOSTS}\d{{4}}\.")
"""What a file that was renamed before has in front of its own second."""


class TensorBoard:
    """Write a run into `events.out.*` of its folder.

    Clips become animated pictures, written here: `SummaryWriter.add_video` needs a moviepy below 2
    and writes an empty event without it (findings/tensorboard-add-video-moviepy-2.sh).

    Args:
        start: TensorBoard hides the events after its `steps`.
    """

    kept: Mapping[str, str] = {}
    where = ""

    def __init__(self, start: TrackerStart) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second of imports

        earlier = sorted(start.folder.glob(f"{EVENTS}*"))
        _keep_before(earlier, int(time.time()))
        continued = bool(earlier)
        self.last_step = start.steps if continued else -1
        # Without a checkpoint the run begins again, and so do the events before its first step.
        purge = (start.steps + 1 if start.steps else 0) if continued else None
        self._writer: Any = SummaryWriter(str(start.folder), purge_step=purge)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def video(self, step: int, clips: Sequence[SampleClip]) -> None:
        """Add each clip as an animated picture."""
        # Untyped, like the writer's own file.
        Summary = importlib.import_module("tensorboard.compat.proto.summary_pb2").Summary
        for clip in clips:
            video = (read_clip(clip.path) * 255).round().byte().permute(0, 2, 3, 1).numpy()
            picture = Summary.Image(
                height=video.shape[1],
                width=video.shape[2],
                colorspace=3,
                encoded_image_string=gif_bytes(video, FAMILY.frames_per_second),
            )
            summary = Summary(value=[Summary.Value(tag=clip.name, image=picture)])
            self._writer.file_writer.add_summary(summary, step)

    def table(self, step: int, name: str, table: Table) -> None:
        """Add a text of the table."""
        self._writer.add_text(name, table.markdown(), step)

    def recipe(self, path: Path, values: Mapping[str, Any]) -> None:
        """Add the file as a text, once."""
        del values
        if self.last_step <= 0:
            text = path.read_text(encoding="utf-8")
            self._writer.add_text("recipe", "\n".join(f"    {line}" for line in text.splitlines()))

    def flush(self) -> None:
        """Write what the writer's thread still holds."""
        self._writer.flush()

    def close(self, *, finished: bool) -> None:
        """Close the file."""
        del finished
        self._writer.close()


def _keep_before(files: Sequence[Path], now: int) -> None:
    """Rename event files of this second or a later one, so that those of now on sort after them.

    TensorBoard reads the files of a folder in the order of their names. After a clock that was set
    back it would read a resumed run's events first, and show those that they replace as well
    (findings/tensorboard-reads-writer-10-before-9.sh). One that is open has to be started again.

    Args:
        files: In the order of their names.
        now: Seconds since 1970.
    """
    late = [file for file in files if file.name.removeprefix(EVENTS)[:10] >= f"{now:010d}"]
    moved = sum(file.name.startswith(f"{EVENTS}{now - 1:010d}.{AFTER_HOSTS}") for file in files)
    for number, file in enumerate(late, moved):
        opened = _MOVED.sub("", file.name.removeprefix(EVENTS))
        name = f"{EVENTS}{now - 1:010d}.{AFTER_HOSTS}{number:04d}.{opened}"
        try:
            file.rename(file.with_name(name))
        except OSError as error:  # such as a file that another program has open on Windows
            warnings.warn(
                f"{file} cannot be renamed ({error}): TensorBoard reads it after this run's events "
                "and shows both where they overlap; nothing else depends on it",
                stacklevel=2,
            )

"""Score clips of one shape that are read in parallel from their files.

Judges of single frames, or of a few neighbouring ones, see a clip window by window, so that its
length costs no memory. Judges of whole clips get all the frames they look at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import clip_windows
from reward_tuning.judges.clip_files import ClipFile
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.sampling.free_memory import free_memory, gigabytes
from reward_tuning.schema.judge_parts import FramesSection
from rewards import FrameReward, VideoReward
from rewards.core.base import FrozenReward

NO_TEXT = "(no prompt)"  # for judges that read no text; an empty prompt is refused
WINDOW = 2**26
"""Bytes of float32 frames held at a time for judges of single frames: 6 frames of 720p.

Measured with hps on clips of 720p: 1.31 GB for 60 frames, 1.34 GB for 300.
"""
WHOLE = 2**29
"""Bytes of clips that judges of whole clips see together; a larger clip is judged alone."""
COPIES = 3
"""Copies of a whole clip in memory while it is judged.

Measured on 60 frames of 720p: 1.5 (flicker) to 2.4 (qwen_critic).
"""


@dataclass(frozen=True)
class ClipShape:
    """Properties that clips scored together have in common.

    Attributes:
        frames: Number of frames of the file.
        positions: Positions of the frames that are read.
        height: Height in pixels.
        width: Width in pixels.
        fps: Frame rate of the file; None for a picture.
    """

    frames: int
    positions: tuple[int, ...]
    height: int
    width: int
    fps: float | None

    def rate(self, places: Sequence[int], clip_fps: float | None) -> float | None:
        """Return the rate of some of the read frames, evenly spread; None if it is unknown.

        Args:
            places: Indices into the frames that are read, increasing.
            clip_fps: Frame rate of the whole clip; None for that of the file.
        """
        fps = self.fps if clip_fps is None else clip_fps
        span = self.positions[places[-1]] - self.positions[places[0]]
        return fps * (len(places) - 1) / span if fps is not None and span else None

    def bytes(self, frames: int) -> int:
        """Return the size of this number of frames in float32."""
        return frames * 3 * self.height * self.width * 4


@dataclass(frozen=True)
class FileJudge:
    """A judge and the section that selects the frames of a clip that it sees."""

    section: FramesSection
    judge: FramedJudge

    @property
    def in_parts(self) -> bool:
        """Whether it may see a clip in parts; a user's own class is not trusted to."""
        return self.section.kind != "python" and _reach(self.judge) is not None

    def for_shape(self, clip: ClipShape) -> FramedJudge | None:
        """Return the judge for clips of a shape and rate; None if they have too few frames."""
        positions = tuple(self.section.judged_frames(len(clip.positions)))
        reward = self.judge.reward
        if isinstance(reward, VideoReward) and len(positions) < reward.least_frames:
            return None
        fps = clip.rate(positions, self.section.given_rate)
        if fps is not None and isinstance(reward, FrozenReward):
            reward = reward.at_rate(fps)
        return replace(self.judge, reward=reward, positions=positions)


def scores_of_shape(
    clips: Sequence[ClipFile], shape: ClipShape, judges: Sequence[FileJudge]
) -> dict[str, list[float | None]]:
    """Return the scores of clips of one shape, by the label of each judge."""
    framed = {one.judge.label: (one.in_parts, one.for_shape(shape)) for one in judges}
    parts = {label: judge for label, (in_parts, judge) in framed.items() if in_parts and judge}
    whole = {label: judge for label, (in_parts, judge) in framed.items() if judge and not in_parts}
    found: dict[str, list[float | None]] = {label: [] for label in framed}
    held = shape.bytes(len(_union(list(whole.values()))))
    together = max(1, WHOLE // held) if held else len(clips)
    for start in range(0, len(clips), together):
        batch = clips[start : start + together]
        for label, scores in _score_batch(batch, shape, parts, whole).items():
            found[label] += _finite(label, scores)
        for label, (_, judge) in framed.items():
            if judge is None:
                found[label] += [None] * len(batch)
    return found


def _score_batch(
    clips: Sequence[ClipFile],
    shape: ClipShape,
    parts: dict[str, FramedJudge],
    whole: dict[str, FramedJudge],
) -> dict[str, Tensor]:
    """Return label to scores `(b,)` of clips that are read once, in parallel."""
    texts = [clip.prompt or NO_TEXT for clip in clips]
    wanted = _union([*parts.values(), *whole.values()])
    kept = _union(list(whole.values()))
    places = {position: place for place, position in enumerate(kept)}
    held = torch.empty(len(clips), len(kept), 3, shape.height, shape.width)
    of_parts: dict[str, list[Tensor]] = {label: [] for label in parts}
    waiting: dict[str, Tensor] = {}
    for positions, window in _windows(clips, shape, wanted):
        for label, judge in parts.items():
            seen = set(judge.positions)
            mine = [i for i, position in enumerate(positions) if position in seen]
            if not mine:
                continue
            shown = window if len(mine) == window.shape[1] else window[:, mine]
            reach = _reach(judge)
            assert reach is not None, label
            if label in waiting:
                shown = torch.cat([waiting[label], shown], dim=1)
            if shown.shape[1] >= reach:
                of_parts[label].append(_score_window(judge, shown, texts, reach))
            if reach > 1:
                waiting[label] = shown[:, -(reach - 1) :].clone()
        for i, position in enumerate(positions):
            if position in places:
                held[:, places[position]] = window[:, i]
    found = {
        label: parts[label].over_frames(torch.cat(scores, dim=1))
        for label, scores in of_parts.items()
    }
    for label, judge in whole.items():
        mine = [places[position] for position in judge.positions]
        shown = held if len(mine) == len(kept) else held[:, mine]
        found[label] = judge.score_with(judge.reward, shown, texts)
    return found


def _windows(
    clips: Sequence[ClipFile], shape: ClipShape, wanted: Sequence[int]
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yield parts of clips read in parallel: indices of the read frames, and `(b, n, 3, H, W)`."""
    if not wanted:
        return
    most = max(1, WINDOW // (len(clips) * shape.bytes(1)))
    chosen = [shape.positions[place] for place in wanted]
    readers = [clip_windows(clip.path, chosen, most) for clip in clips]
    try:
        for start in range(0, len(wanted), most):
            yield wanted[start : start + most], torch.stack([next(one) for one in readers])
    finally:
        for one in readers:
            one.close()


def _reach(judge: FramedJudge) -> int | None:
    """Return the number of neighbouring frames that it needs at once; None for all."""
    if isinstance(judge.reward, VideoReward):
        return judge.reward.reach
    return 1 if isinstance(judge.reward, FrameReward) else None


def _score_window(judge: FramedJudge, window: Tensor, prompts: Sequence[str], reach: int) -> Tensor:
    """Score each `reach` neighbours of `(b, n, 3, H, W)`: `(b, n - reach + 1)`."""
    shown, texts = judge.shown(window), judge.texts(prompts)
    if isinstance(judge.reward, FrameReward):
        return judge.reward.per_frame(shown, texts)
    return judge.reward(shown, texts)[:, None].expand(-1, shown.shape[1] - reach + 1)


def _union(judges: Sequence[FramedJudge]) -> list[int]:
    return sorted({position for judge in judges for position in judge.positions})


def _finite(label: str, scores: Tensor) -> list[float]:
    found: list[float] = scores.tolist()
    if not all(map(math.isfinite, found)):
        raise TuningError(
            f"the judge {label} gave {found}, but scores must be finite: its weights are damaged, "
            "or too large for its dtype; load it in float32, or fetch its file again"
        )
    return found


def check_memory(path: Path, shape: ClipShape, judges: Sequence[FileJudge]) -> None:
    """Check that a clip fits into memory for the judges of whole clips.

    Raises:
        TuningError: The clip does not fit; the message states the memory needed, the free memory,
            and the judges.
    """
    whole = [(one, one.for_shape(shape)) for one in judges if not one.in_parts]
    frames = len(_union([judge for _, judge in whole if judge is not None]))
    needed = COPIES * shape.bytes(frames)
    if needed <= WHOLE:
        return
    free = free_memory(torch.device("cpu"))
    if needed > free:
        labels = ", ".join(one.judge.label for one, judge in whole if judge is not None)
        fits = free // (COPIES * shape.bytes(1))
        raise TuningError(
            f"clip {path}: {frames} frames of {shape.height} x {shape.width} need about "
            f"{gigabytes(needed)} at once for {labels}, but {gigabytes(free)} are free; use "
            f"--frames {max(1, fits)} or fewer, or leave these judges out"
        )

"""Judges on clips from files: batches of one shape, one row a clip."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reward_tuning.clip_files import ClipFile
from reward_tuning.clips import read_clip
from reward_tuning.errors import TuningError
from reward_tuning.judge_sections import FramesSection, spread
from reward_tuning.judges import FramedJudge, load_judges
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from rewards import VideoReward
from rewards.base import Judge as FrozenJudge

NO_TEXT = "(no prompt)"  # given to judges that do not read it
PENDING = 4  # batches of clips that wait, at most, for others of their shape


@dataclass(frozen=True)
class ClipScores:
    """What one clip scored.

    Attributes:
        clip: The file and its prompt.
        shape: Frames judged from, height and width.
        scores: Label of a judge to its score; None where the clip has too few frames for it.
    """

    clip: ClipFile
    shape: tuple[int, int, int]
    scores: dict[str, float | None]


@dataclass(frozen=True)
class Scored:
    """What a set of clips scored.

    Attributes:
        clips: In the order of the files.
        skipped: Files that could not be read, with the reason.
    """

    clips: list[ClipScores]
    skipped: dict[Path, str] = field(default_factory=dict)

    def means(self) -> dict[str, float | None]:
        """Each judge's mean over the clips that it could score."""
        found: dict[str, float | None] = {}
        for label in self.clips[0].scores if self.clips else ():
            values = [one.scores[label] for one in self.clips]
            known = [value for value in values if value is not None]
            found[label] = sum(known) / len(known) if known else None
        return found

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "clips": [
                {
                    "file": str(one.clip.path),
                    "prompt": one.clip.prompt,
                    "frames": one.shape[0],
                    "height": one.shape[1],
                    "width": one.shape[2],
                    "scores": one.scores,
                }
                for one in self.clips
            ],
            "mean": self.means(),
            "skipped": [{"file": str(path), "reason": why} for path, why in self.skipped.items()],
        }


@dataclass(frozen=True)
class FileJudge:
    """A judge and the section that says which frames of a clip it sees."""

    section: FramesSection
    judge: FramedJudge

    def scores(self, clips: Tensor, prompts: Sequence[str]) -> list[float | None]:
        """Score `(b, f, 3, H, W)`; None where f is too few for it.

        Raises:
            TuningError: A score is not finite, which no table and no JSON can hold.
        """
        positions = tuple(self.section.judged_frames(clips.shape[1]))
        reward = self.judge.reward
        if isinstance(reward, VideoReward) and len(positions) < reward.least_frames:
            return [None] * len(clips)
        framed = replace(self.judge, positions=positions)
        found: list[float | None] = framed.scores(clips, prompts).tolist()
        if not all(math.isfinite(score) for score in found if score is not None):
            raise TuningError(
                f"the judge {self.judge.label} gave {found}, which are no scores: its weights are "
                "damaged, or too large for its dtype; load it in float32, or fetch its file again"
            )
        return found


def file_judges(sections: Sequence[FramesSection], device: torch.device) -> list[FileJudge]:
    """Load judges for clips of any length.

    Raises:
        RewardError: A file is missing, damaged or of another kind.
    """
    judges = []
    for section in sections:
        (judge,) = load_judges([section], 1, device)
        assert isinstance(judge, FramedJudge)
        judges.append(FileJudge(section, judge))
    return judges


@torch.no_grad()
def score_clips(
    clips: Sequence[ClipFile],
    judges: Sequence[FileJudge],
    *,
    frames: int | None = None,
    batch_size: int = 4,
    progress: ProgressFn = silent,
) -> Scored:
    """Score files.

    A file that cannot be read is left out and counted, so that one damaged clip of a thousand does
    not cost the others.

    Args:
        clips: Each with a prompt, if any judge reads text.
        judges: At least one.
        frames: Read so many frames of each clip, spread evenly; None for all.
        batch_size: Clips of one shape that are scored at a time.
        progress: Told after every batch.

    Raises:
        TuningError: Clips without a prompt, for judges that read one.
    """
    _check_prompts(clips, judges)
    found: dict[int, ClipScores] = {}
    skipped: dict[Path, str] = {}
    waiting: dict[tuple[int, ...], list[tuple[int, Tensor]]] = defaultdict(list)

    def flush(shape: tuple[int, ...]) -> None:
        part = waiting.pop(shape)
        texts = [clips[i].prompt or NO_TEXT for i, _ in part]
        stacked = torch.stack([clip for _, clip in part])
        by_label = {one.judge.label: one.scores(stacked, texts) for one in judges}
        for place, (i, _) in enumerate(part):
            scores = {label: values[place] for label, values in by_label.items()}
            found[i] = ClipScores(clips[i], (shape[0], shape[2], shape[3]), scores)
        progress(ProgressEvent("scoring", len(found) + len(skipped), len(clips)))

    wanted = None if frames is None else partial(_spread, frames)
    progress(ProgressEvent("scoring", 0, len(clips)))
    for i, file in enumerate(clips):
        try:
            clip = read_clip(file.path, wanted)
        except TuningError as error:
            skipped[file.path] = str(error)
            progress(ProgressEvent("scoring", len(found) + len(skipped), len(clips)))
            continue
        shape = tuple(clip.shape)
        waiting[shape].append((i, clip))
        if len(waiting[shape]) == batch_size:
            flush(shape)
        elif sum(map(len, waiting.values())) >= PENDING * batch_size:
            flush(max(waiting, key=lambda one: len(waiting[one])))
    for shape in list(waiting):
        flush(shape)
    return Scored([found[i] for i in sorted(found)], skipped)


def _spread(frames: int, count: int) -> tuple[int, ...]:
    return spread(frames, tuple(range(count)))


def _check_prompts(clips: Sequence[ClipFile], judges: Sequence[FileJudge]) -> None:
    readers = [
        one.judge.label
        for one in judges
        if not isinstance(one.judge.reward, FrozenJudge) or one.judge.reward.reads_text
    ]
    missing = [clip.path for clip in clips if not (clip.prompt or "").strip()]
    if readers and missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise TuningError(
            f"no prompt for {', '.join(map(str, missing[:3]))}{more}, and {', '.join(readers)} "
            "compares a clip with its prompt; give --prompt TEXT for all, --prompts FILE.jsonl "
            'with {"file": "clip.mp4", "prompt": "..."} a line, or a .txt beside each clip'
        )

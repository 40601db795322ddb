"""Score clips from files: in batches of one shape, one row of scores per clip."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from reward_tuning.errors import TuningError, first_lines
from reward_tuning.files.clips import probe_clip
from reward_tuning.judges.clip_files import ClipFile
from reward_tuning.judges.file_judging import ClipShape, FileJudge, check_memory, scores_of_shape
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.judges.loading import load_judges
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.schema.judge_parts import FramesSection, spread
from rewards.core.base import FrozenReward


@dataclass(frozen=True)
class ClipScores:
    """The scores of one clip.

    Attributes:
        clip: The file and its prompt.
        shape: Number of frames read, height and width.
        scores: Label of a judge to its score; None if the clip has too few frames for it.
    """

    clip: ClipFile
    shape: tuple[int, int, int]
    scores: dict[str, float | None]


@dataclass(frozen=True)
class Scored:
    """The scores of a set of clips.

    Attributes:
        clips: Scores of each clip, in the order of the files.
        skipped: Unreadable files, with the reason.
    """

    clips: list[ClipScores]
    skipped: dict[Path, str] = field(default_factory=dict)

    def means(self) -> dict[str, float | None]:
        """Return each judge's mean over the clips that it could score."""
        found: dict[str, float | None] = {}
        for label in self.clips[0].scores if self.clips else ():
            values = [one.scores[label] for one in self.clips]
            known = [value for value in values if value is not None]
            found[label] = sum(known) / len(known) if known else None
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain data."""
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


def file_judges(sections: Sequence[FramesSection], device: torch.device) -> list[FileJudge]:
    """Load judges for clips of any length.

    Raises:
        RewardError: A file is missing, damaged or of another kind.
        TuningError: A judge compares clips, and so scores none by itself.
    """
    judges = []
    for section in sections:
        if not section.scores_alone:
            raise TuningError(
                f"the judge {section.label} compares clips of one prompt (pairwise: true), so it "
                "has no score for a file; leave it out, or give it with pairwise: false"
            )
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

    A file that is unreadable, truncated or too large for memory is skipped and reported, so that
    one damaged clip of a thousand does not cost the others. Judges that sample frames at a rate get
    the rate of the file, unless their section sets one.

    Args:
        clips: Clips, each with a prompt if any judge reads text.
        judges: At least one.
        frames: Number of frames to read of each clip, spread evenly; None for all.
        batch_size: Number of clips of one shape scored at a time.
        progress: Called after every batch.

    Raises:
        TuningError: A clip has no prompt and a judge reads one, or a score is not finite, which
            JSON cannot represent.
    """
    _check_prompts(clips, judges)
    found: dict[int, ClipScores] = {}
    skipped: dict[Path, str] = {}
    waiting: dict[ClipShape, list[int]] = defaultdict(list)

    def report() -> None:
        progress(ProgressEvent("scoring", len(found) + len(skipped), len(clips)))

    def flush(shape: ClipShape) -> None:
        places = waiting.pop(shape)
        scores = scores_of_shape([clips[i] for i in places], shape, judges)
        size = len(shape.positions), shape.height, shape.width
        for place, i in enumerate(places):
            of_clip = {label: values[place] for label, values in scores.items()}
            found[i] = ClipScores(clips[i], size, of_clip)
        report()

    report()
    for i, file in enumerate(clips):
        try:
            facts = probe_clip(file.path)
            every = tuple(range(facts.frames))
            positions = every if frames is None else spread(frames, every)
            shape = ClipShape(facts.frames, positions, facts.height, facts.width, facts.fps)
            check_memory(file.path, shape, judges)
        except TuningError as error:
            skipped[file.path] = str(error)
            report()
            continue
        waiting[shape].append(i)
        if len(waiting[shape]) == batch_size:
            flush(shape)
    for shape in list(waiting):
        flush(shape)
    return Scored([found[i] for i in sorted(found)], skipped)


def _check_prompts(clips: Sequence[ClipFile], judges: Sequence[FileJudge]) -> None:
    readers = [
        one.judge.label
        for one in judges
        if not isinstance(one.judge.reward, FrozenReward) or one.judge.reward.reads_text
    ]
    missing = [str(clip.path) for clip in clips if not (clip.prompt or "").strip()]
    if readers and missing:
        raise TuningError(
            f"no prompt for {', '.join(first_lines(missing, 3))}, and {', '.join(readers)} "
            "compares a clip with its prompt; give --prompt TEXT for all, --prompts FILE.jsonl "
            'with {"file": "clip.mp4", "prompt": "..."} per line, or a .txt next to each clip'
        )

"""Where the clips of a replay come from: the base itself, or a file that names videos."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from reward_tuning.clips import read_clip
from reward_tuning.condition_files import NOTHING, ConditionFiles
from reward_tuning.errors import TuningError
from reward_tuning.prompts import Prompt, PromptStream
from reward_tuning.recipe import Recipe

MOST_TOLD = 10  # bad lines told in one message


@dataclass(frozen=True)
class ReplaySource:
    """One clip to be replayed, before it is latents.

    Attributes:
        prompt: What it shows.
        files: What else the base follows when it samples the clip.
        video: Its file; None for a clip that the base samples.
        line: Where a file of clips names it, counted from 1.
    """

    prompt: str
    video: Path | None = None
    line: int = 0
    files: ConditionFiles = NOTHING

    @property
    def asked(self) -> str | Prompt:
        """The prompt, with what it follows where that is anything."""
        if self.files == NOTHING:
            return self.prompt
        return Prompt(self.prompt, self.prompt, self.files)


def replay_sources(recipe: Recipe, stream: PromptStream) -> list[ReplaySource]:
    """The clips that a recipe wants replayed; none where that is off.

    Raises:
        TuningError: The file of clips cannot be read, or has bad lines.
    """
    replay = recipe.train.replay
    if replay is None:
        return []
    if replay.source == "base":
        prompts = [stream.prompt_at(place) for place in range(replay.clips)]
        return [ReplaySource(prompt.text, files=prompt.files) for prompt in prompts]
    return read_sources(Path(replay.source))


def read_sources(path: Path) -> list[ReplaySource]:
    """Read a file of clips: `{"prompt": ..., "video": ...}` a line, other keys ignored.

    A relative `video` starts from the file's folder.

    Raises:
        TuningError: It cannot be read, is empty, or lines are bad, each told with its number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TuningError(f"train.replay.source: {path} cannot be read ({error})") from error
    lines = enumerate(io.StringIO(text, newline=None), 1)
    found = [(line, _source(row, path.parent, line)) for line, row in lines if row.strip()]
    _tell(path, {line: one for line, one in found if isinstance(one, str)})
    if not found:
        raise TuningError(
            f'train.replay.source: {path} holds no clip; write {{"prompt": "...", "video": '
            '"clip.mp4"} a line, or take train.replay.source=base'
        )
    return [one for _, one in found if isinstance(one, ReplaySource)]


def check_sources(path: Path, sources: Sequence[ReplaySource], size: tuple[int, int, int]) -> None:
    """Read every clip of a file once, before anything heavy is loaded.

    Args:
        path: Of the file of clips, for the error.
        sources: What it names.
        size: Frames, height and width of the recipe.

    Raises:
        TuningError: Clips are missing, no videos, or of another size; each with its line.
    """
    bad = {}
    for source in sources:
        try:
            read_fitting(source.video, size)
        except TuningError as error:
            bad[source.line] = str(error)
    _tell(path, bad)


def read_fitting(path: Path | None, size: tuple[int, int, int]) -> Tensor:
    """Read a clip that has the recipe's frames and size: `(f, 3, H, W)` in [0, 1].

    Raises:
        TuningError: It has not, or cannot be read.
    """
    assert path is not None
    frames = read_clip(path)
    count, _, height, width = frames.shape
    if (count, height, width) != size:
        raise TuningError(
            f"clip {path} has {count} frames of {height} x {width} (height x width); the recipe's "
            f"sampling has {size[0]} of {size[1]} x {size[2]}: cut and scale the clip to that"
        )
    return frames


def _source(text: str, folder: Path, line: int) -> ReplaySource | str:
    """The clip that a line names, or what is wrong with the line."""
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        return f"not valid JSON: {error.msg} at column {error.colno}"
    if not isinstance(row, dict):
        return f'got {text.strip()[:60]}; wanted: {{"prompt": "...", "video": "clip.mp4"}}'
    for key in ("prompt", "video"):
        value = row.get(key)
        if key not in row:
            return f"the key `{key}` is missing"
        if not (isinstance(value, str) and value.strip()):
            return f"{key} is {json.dumps(value, ensure_ascii=False)}; a text is wanted"
    return ReplaySource(row["prompt"].strip(), folder / Path(row["video"]).expanduser(), line)


def _tell(path: Path, bad: Mapping[int, str]) -> None:
    """Raise what is wrong with which lines, if anything is."""
    if not bad:
        return
    told = [f"  line {number}: {text}" for number, text in bad.items()]
    more = [f"  and {len(told) - MOST_TOLD} more"] if len(told) > MOST_TOLD else []
    raise TuningError("\n".join([f"train.replay.source {path}:", *told[:MOST_TOLD], *more]))

"""The sources of a replay's clips: prompts for the base, or a file that names videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import read_clip
from reward_tuning.files.columns import PROMPT, VIDEO, Row, RowFormat
from reward_tuning.files.rows import bad_rows_message, read_rows
from reward_tuning.inputs.condition_files import NO_CONDITION, ConditionFiles
from reward_tuning.inputs.prompts import Prompt, PromptStream
from reward_tuning.schema.recipe import Recipe

EXAMPLE = '{"prompt": "...", "video": "clip.mp4"}'
REPLAY_ROWS = RowFormat(
    what="train.replay.source",
    columns=(PROMPT, VIDEO),
    example=EXAMPLE,
    empty=f"has no clip; write {EXAMPLE} a line, or use train.replay.source=base",
)


@dataclass(frozen=True)
class ReplaySource:
    """One clip to be replayed, before it becomes latents.

    Attributes:
        prompt: Its prompt.
        files: Further conditions of a clip that the base samples.
        video: Its file; None for a clip that the base samples.
        place: Its place in the file of clips, such as `line 3`.
    """

    prompt: str
    video: Path | None = None
    place: str = ""
    files: ConditionFiles = NO_CONDITION

    @property
    def asked(self) -> str | Prompt:
        """Return the prompt, with its conditions if there are any."""
        if self.files == NO_CONDITION:
            return self.prompt
        return Prompt(self.prompt, self.prompt, self.files)


def replay_sources(recipe: Recipe, stream: PromptStream) -> list[ReplaySource]:
    """List the sources of a recipe's replay; none if it is off.

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
    """Read a file of clips, in its order.

    Args:
        path: File in a format of `rows.read_rows` with a `prompt` (or `text`, `caption`) and a
            `video` (or `file`, `file_path`) a row. A relative path starts from the file's folder.

    Raises:
        TuningError: The file cannot be read or is empty, or rows are bad, each reported with its
            line.
    """

    def make(row: Row) -> ReplaySource:
        return ReplaySource(row.text(PROMPT), row.path(VIDEO, path.parent), row.place)

    return read_rows(path, REPLAY_ROWS, make)


def check_sources(path: Path, sources: Sequence[ReplaySource], size: tuple[int, int, int]) -> None:
    """Read every clip of a file once, before anything heavy is loaded.

    Args:
        path: File of clips, for the message.
        sources: Its clips.
        size: Frames, height and width of the recipe.

    Raises:
        TuningError: Clips are missing, unreadable or of another size; each with its line.
    """
    bad = []
    for source in sources:
        try:
            read_fitting(source.video, size)
        except TuningError as error:
            bad.append(f"{source.place}: {error}")
    if bad:
        raise TuningError(bad_rows_message(f"{REPLAY_ROWS.what} {path}:", bad))


def read_fitting(path: Path | None, size: tuple[int, int, int]) -> Tensor:
    """Read a clip of the recipe's frames and size: `(f, 3, H, W)` in [0, 1].

    Raises:
        TuningError: It cannot be read, or has another length or size.
    """
    assert path is not None
    frames = read_clip(path)
    count, _, height, width = frames.shape
    if (count, height, width) != size:
        raise TuningError(
            f"clip {path} has {count} frames of {height} x {width} (height x width); the recipe's "
            f"sampling has {size[0]} of {size[1]} x {size[2]}; trim and scale the clip to that"
        )
    return frames

"""Prompt files and the endless, resumable stream of prompts that training draws from.

A prompt has two texts: the one the generator gets, often long, and the one the judges get, which
must be short: CLIP reads 77 tokens and drops the rest. It may also name files that the clip shall
follow: pictures, clips, a trajectory, a camera.
"""

import contextlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from reward_tuning.errors import TuningError
from reward_tuning.files.rows import (
    TABLES,
    Row,
    RowKind,
    cleaned,
    read_rows,
    shown,
    text_fault,
)
from reward_tuning.inputs.condition_files import NOTHING, ConditionFiles, resolved

TEXT, REWARD_TEXT = "prompt", "reward_prompt"
CONDITION_KEYS = tuple(field.name for field in fields(ConditionFiles))
LARGEST = 10**6
"""Frames, or a speed: beyond is a slip, and infinity."""
PROMPTS = RowKind(
    what="prompt file",
    keys=(TEXT, REWARD_TEXT, *CONDITION_KEYS),
    needed=(TEXT,),
    wanted=f'an object is wanted: {{"{TEXT}": "..."}}',
    empty="holds no prompt; write one a line",
    text=TEXT,
)


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        text: What the generator is asked for.
        reward_text: What the judges compare the clip with; the same text unless the file says.
        files: What else the generator follows.
    """

    text: str
    reward_text: str
    files: ConditionFiles = NOTHING


def read_prompts(path: str | Path) -> list[Prompt]:
    """Read a prompt file, in its order, duplicates kept.

    Args:
        path: As `row_files.read_rows`: `.txt` with a prompt a line (one that begins with # is a
            comment), `.jsonl` or `.ndjson` with an object a line, `.json` with a list of objects or
            texts, `.csv` or `.tsv` with a header. Keys and columns: a `prompt` and, where wanted, a
            `reward_prompt` and the names of `ConditionFiles` (`image`, `video`, `control`,
            `camera`, ...), whose paths start from the file's folder. Others are ignored unless they
            look like a misspelling of these; null is not given.

    Raises:
        TuningError: The file is missing, empty or of another kind; or lines are bad, each told with
            its number.
    """
    path = Path(path)
    table = path.suffix.lower() in TABLES

    def make(row: Row) -> Prompt:
        return _prompt(_numbers(row.values) if table else row.values, path.parent)

    return read_rows(path, PROMPTS, make)


def _prompt(row: Mapping[str, Any], folder: Path) -> Prompt:
    """The prompt of a row.

    Raises:
        TuningError: A value is wrong, or a file is not there.
    """
    for key in (TEXT, REWARD_TEXT):
        if key in row and (wrong := text_fault(key, row[key])):
            raise TuningError(wrong)
    text = cleaned(row[TEXT])
    files = resolved(_followed(row), folder)
    return Prompt(text, cleaned(row[REWARD_TEXT]) if REWARD_TEXT in row else text, files)


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table, whose cells are all texts, with numbers where they belong."""
    found = dict(row)
    for key, kind in (("keep_frames", int), ("camera_speed", float)):
        with contextlib.suppress(KeyError, ValueError):  # what is no number is told as it stands
            found[key] = kind(row[key])
    return found


def _followed(row: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `ConditionFiles`, checked for their types.

    Raises:
        TuningError: A value is of another type.
    """
    found: dict[str, Any] = {}
    for key in CONDITION_KEYS:
        value = row.get(key)
        if value is None:
            continue
        if key == "control" and isinstance(value, str):
            value = [value]
        wanted = "a text"
        if key == "control":
            wanted = "a path or a list of paths"
            fits = isinstance(value, list) and bool(value)
            fits = fits and all(isinstance(one, str) and one.strip() for one in value)
        elif key == "keep_frames":
            wanted = "a whole number from 1"
            fits = isinstance(value, int) and 1 <= value <= LARGEST
        elif key == "camera_speed":
            wanted = "a number above 0"
            fits = isinstance(value, int | float) and 0 < value <= LARGEST
        else:
            fits = isinstance(value, str) and bool(value.strip())
        if not fits or isinstance(value, bool):
            raise TuningError(f"{key} is {shown(value)}; {wanted} is wanted")
        found[key] = value
    return found


class PromptStream:
    """Prompts without end: every epoch each prompt once, in an order drawn from seed and epoch.

    The prompt at a position depends on seed and position alone, so a run resumes from one integer.

    Args:
        prompts: At least one.
        seed: Of the orders.

    Attributes:
        prompts: As given.
    """

    def __init__(self, prompts: Sequence[Prompt], seed: int) -> None:
        assert prompts, "read_prompts refuses an empty file"
        self.prompts = tuple(prompts)
        self._seed = seed
        self._epoch = -1
        self._order: list[int] = []

    def __len__(self) -> int:
        """Return the prompts of an epoch."""
        return len(self.prompts)

    def prompt_at(self, position: int) -> Prompt:
        """Return the prompt at a position of the stream, counted from 0."""
        assert position >= 0, position
        epoch, place = divmod(position, len(self.prompts))
        if epoch != self._epoch:
            self._order = list(range(len(self.prompts)))
            random.Random(f"prompts {self._seed} {epoch}").shuffle(self._order)
            self._epoch = epoch
        return self.prompts[self._order[place]]

    def drawn(self, count: int) -> list[Prompt]:
        """Return each prompt that the first `count` positions hold, as often as its first epoch."""
        # every epoch has the same prompts
        return self.batch_at(0, min(count, len(self.prompts)))

    def batch_at(self, position: int, size: int) -> list[Prompt]:
        """Return `size` prompts from a position on."""
        return [self.prompt_at(position + offset) for offset in range(size)]

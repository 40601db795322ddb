"""Prompt files and the endless, resumable stream of prompts that training draws from.

A prompt has two texts: the one the generator gets, often long, and the one the judges get, which
must be short: CLIP reads 77 tokens and drops the rest. It may also have a category, by which
reports sort and filter, and name files that condition the clip: pictures, clips, a trajectory, a
camera.
"""

import contextlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from reward_tuning.errors import TuningError
from reward_tuning.files.clean_text import short_json
from reward_tuning.files.columns import (
    CATEGORY,
    PROMPT,
    REWARD_PROMPT,
    Column,
    Row,
    RowFormat,
)
from reward_tuning.files.rows import TABLES, read_rows
from reward_tuning.inputs.condition_files import (
    NO_CONDITION,
    ConditionFiles,
    resolve_condition_files,
)
from reward_tuning.inputs.vbench_list import (
    PICTURE,
    VBENCH_DIMENSION,
    VBENCH_PROMPT,
    first_dimension,
    is_vbench_list,
    refuse_picture_names,
)

CONDITION_KEYS = tuple(field.name for field in fields(ConditionFiles))
LARGEST = 10**6  # frames, or a camera speed: a larger number is a slip
PROMPT_ROWS = RowFormat(
    what="prompt file",
    # A `video` here is a clip to change, not the clip that the row is about: the other names of
    # that column are ignored, so a `clips.jsonl` serves as a prompt file.
    columns=(PROMPT, REWARD_PROMPT, CATEGORY, *(Column((key,)) for key in CONDITION_KEYS)),
    example='{"prompt": "..."}',
    empty="has no prompt; write one a line",
    bare_text=True,
)
VBENCH_ROWS = replace(
    PROMPT_ROWS,
    columns=(VBENCH_PROMPT, VBENCH_DIMENSION, PICTURE, *PROMPT_ROWS.columns[1:]),
    example='{"prompt_en": "...", "dimension": ["..."]}',
    bare_text=False,
)


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        text: Text that the generator gets.
        reward_text: Text that the judges compare the clip with; the same unless given.
        files: Files and words that condition the clip, besides the text.
        category: What kind of prompt it is, such as `animals`; None where the file names none.
    """

    text: str
    reward_text: str
    files: ConditionFiles = NO_CONDITION
    category: str | None = None


def read_prompts(path: str | Path) -> list[Prompt]:
    """Read a prompt file, in its order, duplicates kept.

    Args:
        path: File in a format of `rows.read_rows`. Columns: a `prompt` (or `text`, `caption`) and,
            optionally, a `reward_prompt`, a `category` and the attributes of `ConditionFiles`
            (`image`, `video`, `control`, `camera`, ...), whose relative paths start from the file's
            folder. Other columns are ignored unless they look like a misspelling of these. A
            prompt list of VBench (`is_vbench_list`) is read under VBench's names: `prompt_en`, and
            the first `dimension` as the category.

    Raises:
        TuningError: The file is missing, empty or has another suffix; or lines are bad, each
            reported with its number.
    """
    path = Path(path)
    table = path.suffix.lower() in TABLES
    vbench = is_vbench_list(path)

    def make(row: Row) -> Prompt:
        text = row.text(VBENCH_PROMPT if vbench else PROMPT)
        reward_text = row.text(REWARD_PROMPT) if "reward_prompt" in row.values else text
        category = row.text(CATEGORY) if "category" in row.values else None
        if vbench:
            refuse_picture_names(row)
            category = category or first_dimension(row)
        values = _with_numbers(row.values) if table else row.values
        files = resolve_condition_files(_condition_values(values), path.parent)
        return Prompt(text, reward_text, files, category)

    return read_rows(path, VBENCH_ROWS if vbench else PROMPT_ROWS, make)


def _with_numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a table, whose cells are all texts, with its numbers converted."""
    found = dict(row)
    for key, kind in (("keep_frames", int), ("camera_speed", float)):
        with contextlib.suppress(KeyError, ValueError):  # `_condition_values` reports a non-number
            found[key] = kind(row[key])
    return found


def _condition_values(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `ConditionFiles` in a row, checked for their types.

    Raises:
        TuningError: A value has another type.
    """
    found: dict[str, Any] = {}
    for key in CONDITION_KEYS:
        value = row.get(key)
        if value is None:
            continue
        if key == "control" and isinstance(value, str):
            value = [value]
        expected = "a text"
        if key == "control":
            expected = "a path or a list of paths"
            fits = isinstance(value, list) and bool(value)
            fits = fits and all(isinstance(one, str) and one.strip() for one in value)
        elif key == "keep_frames":
            expected = "a whole number from 1"
            fits = isinstance(value, int) and 1 <= value <= LARGEST
        elif key == "camera_speed":
            expected = "a number above 0"
            fits = isinstance(value, int | float) and 0 < value <= LARGEST
        else:
            fits = isinstance(value, str) and bool(value.strip())
        if not fits or isinstance(value, bool):
            raise TuningError(f"{key} is {short_json(value)}; expected {expected}")
        found[key] = value
    return found


class PromptStream:
    """An endless stream: each prompt once an epoch, in an order drawn from seed and epoch.

    The prompt at a position depends on seed and position alone, so a run resumes from one integer.

    Args:
        prompts: One or more prompts.
        seed: Seed of the orders.

    Attributes:
        prompts: The prompts, in the order of the file.
    """

    def __init__(self, prompts: Sequence[Prompt], seed: int) -> None:
        assert prompts, "read_prompts refuses an empty file"
        self.prompts = tuple(prompts)
        self._seed = seed
        self._epoch = -1
        self._order: list[int] = []

    def __len__(self) -> int:
        """Return the number of prompts in an epoch."""
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
        """Return the prompts at the first `count` positions, those of the first epoch at most."""
        # Later epochs have the same prompts.
        return self.batch_at(0, min(count, len(self.prompts)))

    def batch_at(self, position: int, size: int) -> list[Prompt]:
        """Return `size` prompts from a position on."""
        return [self.prompt_at(position + offset) for offset in range(size)]

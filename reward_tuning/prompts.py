"""Prompt files and the endless, resumable stream of prompts that training draws from.

A prompt has two texts: the one the generator gets, often long, and the one the judges get, which
must be short: CLIP reads 77 tokens and drops the rest. It may also name files that the clip shall
follow: pictures, clips, a trajectory, a camera.
"""

import contextlib
import csv
import difflib
import io
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from reward_tuning.condition_files import NOTHING, ConditionFiles, resolved
from reward_tuning.errors import TuningError

TEXT, REWARD_TEXT = "prompt", "reward_prompt"
FOLLOWED = tuple(field.name for field in fields(ConditionFiles))
KEYS = (TEXT, REWARD_TEXT, *FOLLOWED)
MOST_TOLD = 10  # bad lines told in one message


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
        path: `.txt` with a prompt a line, `.jsonl` with an object a line, or `.csv` with a header;
            the latter two with a `prompt` and, where wanted, a `reward_prompt` and the names of
            `ConditionFiles` (`image`, `video`, `control`, `camera`, ...), whose paths start from
            the file's folder. Other keys are ignored unless they look like a misspelling of these.
            Blank lines are skipped.

    Raises:
        TuningError: The file is missing, empty or of another kind; or lines are bad, each told with
            its number.
    """
    path = Path(path)
    readers = {".txt": _txt, ".jsonl": _jsonl, ".csv": _csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise TuningError(
            f"prompt file {path}: ending {path.suffix or '(none)'}; allowed: {', '.join(readers)}"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TuningError(f"prompt file {path}: cannot be read ({error.strerror})") from error
    prompts: list[Prompt] = []
    bad: list[str] = []
    for number, found in reader(_decoded(path, data), path.parent):
        if isinstance(found, Prompt):
            prompts.append(found)
        else:
            bad.append(f"  line {number}: {found}")
    if bad:
        more = [f"  and {len(bad) - MOST_TOLD} more"] if len(bad) > MOST_TOLD else []
        raise TuningError("\n".join([f"prompt file {path}:", *bad[:MOST_TOLD], *more]))
    if not prompts:
        raise TuningError(f"prompt file {path} holds no prompt; write one a line")
    return prompts


Found = Iterator[tuple[int, Prompt | str]]
"""Line number, and the prompt there or what is wrong with it."""


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TuningError(
            f"prompt file {path}, line {line}: not UTF-8 text; save the file as UTF-8"
        ) from error


def _txt(text: str, _: Path) -> Found:
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if line.strip():
            yield number, Prompt(line.strip(), line.strip())


def _jsonl(text: str, folder: Path) -> Found:
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            continue
        try:
            row = json_row(line)
        except TuningError as error:
            yield number, str(error)
            continue
        if not isinstance(row, dict):
            yield number, f'got {line.strip()[:60]}; an object is wanted: {{"{TEXT}": "..."}}'
            continue
        yield number, _prompt(row, folder, misspelt(row))


def _csv(text: str, folder: Path) -> Found:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    end = 0
    try:
        for cells in rows:
            start, end = end + 1, rows.line_num  # a quoted cell may run over several lines
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                wrong = misspelt(header)
                if wrong is None and TEXT not in header:
                    wrong = f"the header is {', '.join(header)}; a column `{TEXT}` is wanted"
                if wrong is not None:
                    yield start, wrong
                    return
            elif len(cells) != len(header):
                yield (
                    start,
                    f"{len(cells)} cells for {len(header)} columns; "
                    "put a text with a comma in quotes",
                )
            else:
                row: dict[str, Any] = dict(zip(header, cells, strict=True))
                for key in KEYS[1:]:
                    if not row.get(key, "").strip():  # an empty cell is no value
                        row.pop(key, None)
                yield start, _prompt(_numbers(row), folder, None)
    except csv.Error as error:
        yield rows.line_num, f"not valid CSV: {error}"


def half_letter(text: str) -> str | None:
    """Tell of half a letter (a lone surrogate), which no tokenizer reads and no file takes.

    JSON may hold one as an escape, and the command line where it is not UTF-8.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return f"{text!a} holds half a letter (a lone surrogate); give the text as UTF-8"
    return None


def text_fault(key: str, value: Any) -> str | None:
    """Tell what is wrong with the value of a key that wants a text."""
    if not (isinstance(value, str) and value.strip()):
        return f"{key} is {json.dumps(value, ensure_ascii=False)}; a text is wanted"
    wrong = half_letter(value)
    return None if wrong is None else f"{key} {wrong}"


def json_row(line: str) -> Any:
    """Read a line of a jsonl file.

    Raises:
        TuningError: It is no JSON.
    """
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise TuningError(f"not valid JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise TuningError("not valid JSON: too deeply nested") from error


def misspelt(keys: Sequence[str] | dict[str, Any]) -> str | None:
    """Tell which key looks like a misspelling of ours; it would change the training in silence."""
    for key in keys:
        close = difflib.get_close_matches(str(key).lower(), KEYS, 1, 0.75)
        if close and key != close[0] and close[0] not in keys:
            return f"unknown key `{key}`; did you mean `{close[0]}`?"
    return None


def _prompt(row: dict[str, Any], folder: Path, wrong: str | None) -> Prompt | str:
    text, reward_text = row.get(TEXT), row.get(REWARD_TEXT)
    if wrong is None and TEXT not in row:
        wrong = f"the key `{TEXT}` is missing"
    for key, value in ((TEXT, text), (REWARD_TEXT, reward_text)):
        if wrong is None and key in row:
            wrong = text_fault(key, value)
    if wrong is not None:
        return wrong
    assert isinstance(text, str)
    reward_text = text if reward_text is None else reward_text
    try:
        files = resolved(_followed(row), folder)
    except TuningError as error:
        return str(error)
    return Prompt(text.strip(), reward_text.strip(), files)


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a csv, whose cells are all texts, with numbers where they belong."""
    found = dict(row)
    for key, kind in (("keep_frames", int), ("camera_speed", float)):
        with contextlib.suppress(KeyError, ValueError):  # what is no number is told as it stands
            found[key] = kind(row[key])
    return found


def _followed(row: dict[str, Any]) -> dict[str, Any]:
    """The keys of `ConditionFiles`, checked for their types.

    Raises:
        TuningError: A value is of another type.
    """
    found: dict[str, Any] = {}
    for key in FOLLOWED:
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
            wanted, fits = "a whole number from 1", isinstance(value, int) and value >= 1
        elif key == "camera_speed":
            wanted, fits = "a number above 0", isinstance(value, int | float) and value > 0
        else:
            fits = isinstance(value, str) and bool(value.strip())
        if not fits or isinstance(value, bool):
            raise TuningError(
                f"{key} is {json.dumps(value, ensure_ascii=False)}; {wanted} is wanted"
            )
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

"""Prompt files and the endless, resumable stream of prompts that training draws from.

A prompt has two texts: the one the generator gets, often long, and the one the judges get, which
must be short: CLIP reads 77 tokens and drops the rest.
"""

import csv
import difflib
import io
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_tuning.errors import TuningError

TEXT, REWARD_TEXT = "prompt", "reward_prompt"
MOST_TOLD = 10  # bad lines told in one message


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        text: What the generator is asked for.
        reward_text: What the judges compare the clip with; the same text unless the file says.
    """

    text: str
    reward_text: str


def read_prompts(path: str | Path) -> list[Prompt]:
    """Read a prompt file, in its order, duplicates kept.

    Args:
        path: `.txt` with a prompt a line, `.jsonl` with an object a line, or `.csv` with a header;
            the latter two with a `prompt` and, where wanted, a `reward_prompt`. Other keys are
            ignored unless they look like a misspelling of these. Blank lines are skipped.

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
    for number, found in reader(_decoded(path, data)):
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


def _txt(text: str) -> Found:
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if line.strip():
            yield number, Prompt(line.strip(), line.strip())


def _jsonl(text: str) -> Found:
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, f"not valid JSON: {error.msg} at column {error.colno}"
            continue
        if not isinstance(row, dict):
            yield number, f'got {line.strip()[:60]}; an object is wanted: {{"{TEXT}": "..."}}'
            continue
        yield number, _prompt(row, misspelt(row))


def _csv(text: str) -> Found:
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
                row = dict(zip(header, cells, strict=True))
                if not row.get(REWARD_TEXT, "").strip():
                    row.pop(REWARD_TEXT, None)
                yield start, _prompt(row, None)
    except csv.Error as error:
        yield rows.line_num, f"not valid CSV: {error}"


def misspelt(keys: Sequence[str] | dict[str, Any]) -> str | None:
    """Tell which key looks like a misspelling of ours; it would change the training in silence."""
    for key in keys:
        close = difflib.get_close_matches(str(key).lower(), (TEXT, REWARD_TEXT), 1, 0.75)
        if close and key != close[0] and close[0] not in keys:
            return f"unknown key `{key}`; did you mean `{close[0]}`?"
    return None


def _prompt(row: dict[str, Any], wrong: str | None) -> Prompt | str:
    text, reward_text = row.get(TEXT), row.get(REWARD_TEXT)
    if wrong is None and TEXT not in row:
        wrong = f"the key `{TEXT}` is missing"
    for key, value in ((TEXT, text), (REWARD_TEXT, reward_text)):
        if wrong is None and key in row and not (isinstance(value, str) and value.strip()):
            wrong = f"{key} is {json.dumps(value, ensure_ascii=False)}; a text is wanted"
    if wrong is not None:
        return wrong
    assert isinstance(text, str)
    return Prompt(text.strip(), reward_text.strip() if reward_text is not None else text.strip())


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

    def batch_at(self, position: int, size: int) -> list[Prompt]:
        """Return `size` prompts from a position on."""
        return [self.prompt_at(position + offset) for offset in range(size)]

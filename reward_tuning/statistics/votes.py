"""Vote files: what a person preferred on the blind vote page of a report, read and checked.

A vote file is JSON:

    {"format": "reward-tuning-votes", "version": 1,
     "report": {"id": "...", "title": "..."}, "voter": "name or empty",
     "votes": [{"prompt": 0, "left": "base", "right": "tuned", "choice": "left",
                "control": false, "at": "2026-11-30T12:00:00.000Z"}, ...]}

`choice` is left, right, tie or bad (both are bad); `control` marks a pair of two base clips, which
shows the voter's own noise. Files come from other people: each value is checked before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, cast

from reward_tuning.errors import TuningError, first_lines, short_repr
from reward_tuning.files.clean_text import cleaned, has_lone_surrogate

FORMAT, VERSION = "reward-tuning-votes", 1
Choice = Literal["left", "right", "tie", "bad"]
CHOICES: tuple[Choice, ...] = ("left", "right", "tie", "bad")

MAX_BYTES = 32_000_000
MAX_VOTES = 100_000
MAX_SIDES = 100  # the time of their scores grows with the third power
MAX_TEXT = 200  # characters of a name, an id or a title
MAX_PROMPT = 1_000_000
MAX_REPORTED = 5


@dataclass(frozen=True)
class Vote:
    """One choice between two clips of a prompt.

    Attributes:
        voter: Name, unique among the voters of all files.
        prompt: Index of the prompt in the report.
        left: Name of the side shown left.
        right: Name of the side shown right; the same one for a control pair.
        choice: left, right, tie, or bad (both are bad).
        control: Two base clips were shown.
        at: When, with a time zone.
    """

    voter: str
    prompt: int
    left: str
    right: str
    choice: Choice
    control: bool
    at: datetime

    @property
    def pair(self) -> tuple[int, str, str, bool]:
        """What was compared, whichever side was left."""
        first, second = sorted((self.left, self.right))
        return self.prompt, first, second, self.control

    @property
    def chosen(self) -> str:
        """Name of the side that was preferred; "tie" or "bad"; on a control pair left or right."""
        if self.control or self.choice in ("tie", "bad"):
            return self.choice
        return self.left if self.choice == "left" else self.right


@dataclass(frozen=True)
class VoteFile:
    """The content of one file, checked."""

    path: Path
    report: str
    title: str
    voter: str
    votes: tuple[Vote, ...]


@dataclass(frozen=True)
class Votes:
    """The votes of all files.

    Attributes:
        report: Id of the report that was voted on.
        title: Its title.
        voters: Names, in the order of the files.
        votes: One of each voter on each pair, the last one.
        replaced: Number of earlier votes on the same pairs, which do not count.
    """

    report: str
    title: str
    voters: tuple[str, ...]
    votes: tuple[Vote, ...]
    replaced: int


def read_votes(paths: Sequence[Path]) -> Votes:
    """Read vote files of one report and add them up.

    Files with the same voter name are one voter. A file without a name is a voter of its own,
    called `voter 1`, `voter 2` and so on by its place among the files; a copy of it counts once. Of
    several votes of a voter on one pair the last counts, by its time, then by its place.

    Args:
        paths: The files.

    Raises:
        TuningError: A file cannot be read or is wrong, the files are of different reports, or
            have too many sides.
    """
    if not paths:
        raise TuningError("no vote file; give one or more, as saved by a report's vote page")
    files = [read_vote_file(path) for path in paths]
    first = files[0]
    for file in files[1:]:
        if file.report != first.report:
            raise TuningError(
                f"{first.path} and {file.path} are votes on different reports "
                f"({short_repr(first.title)}, id {first.report}, and {short_repr(file.title)}, id "
                f"{file.report}); give the files of one report"
            )
    sides = {name for file in files for vote in file.votes for name in (vote.left, vote.right)}
    if len(sides) > MAX_SIDES:
        raise TuningError(
            f"votes on {len(sides)} sides; at most {MAX_SIDES} are compared. Give the files of a "
            "report with fewer sides"
        )
    named = _with_names(files)
    last: dict[tuple[Any, ...], Vote] = {}
    total = 0
    for vote in sorted((vote for file in named for vote in file.votes), key=lambda vote: vote.at):
        total += 1
        last[(vote.voter, *vote.pair)] = vote
    return Votes(
        report=first.report,
        title=first.title,
        voters=tuple(dict.fromkeys(file.voter for file in named)),
        votes=tuple(last.values()),
        replaced=total - len(last),
    )


def _with_names(files: Sequence[VoteFile]) -> list[VoteFile]:
    """Give each file without a voter a name that no other file has, and drop its copies."""
    taken = {file.voter for file in files}
    found: list[VoteFile] = []
    seen: set[tuple[Vote, ...]] = set()
    for place, file in enumerate(files, 1):
        if file.voter:
            found.append(file)
            continue
        if file.votes in seen:
            continue
        seen.add(file.votes)
        name = f"voter {place}"
        while name in taken:
            name += "*"
        taken.add(name)
        votes = tuple(replace(vote, voter=name) for vote in file.votes)
        found.append(replace(file, voter=name, votes=votes))
    return found


def read_vote_file(path: Path) -> VoteFile:
    """Read and check one vote file.

    Raises:
        TuningError: The file cannot be read, is too large, is not a vote file of this version, or a
            value is wrong.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise TuningError(
            f"cannot read the vote file {path}: {error.strerror}; give a file that a report's vote "
            "page has saved"
        ) from error
    if len(content) > MAX_BYTES:
        raise TuningError(
            f"{path} is larger than {MAX_BYTES // 1_000_000} MB, so it is no vote file; give a "
            "file that a report's vote page has saved"
        )
    try:
        return checked_votes(_parsed(content), path)
    except TuningError as error:
        raise TuningError(
            f"{path}: {error}; give a file that a report's vote page has saved"
        ) from error


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise TuningError("not UTF-8") from error
    except json.JSONDecodeError as error:
        raise TuningError(
            f"not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except (RecursionError, ValueError) as error:  # nested too deeply, a number of 5,000 digits
        raise TuningError("not valid JSON") from error


def checked_votes(data: Any, path: Path = Path("votes.json")) -> VoteFile:
    """Check the content of a vote file; keys that are not known are ignored.

    Args:
        data: The parsed JSON.
        path: Of the file.

    Raises:
        TuningError: A value is wrong; names the vote, the value and what is allowed.
    """
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise TuningError(f"not a vote file (`format` is not {FORMAT!r})")
    version = data.get("version")
    if type(version) is not int or version != VERSION:
        raise TuningError(
            f"version {short_repr(version)} of the format, and this version of reward-tuning reads "
            f"{VERSION}"
        )
    report = data.get("report")
    if not isinstance(report, dict):
        raise TuningError(f"report: got {short_repr(report)}; expected an id and a title")
    identity = _text("report.id", report.get("id"))
    title = _text("report.title", report.get("title"), empty=True)
    voter = _text("voter", data.get("voter"), empty=True)
    rows = data.get("votes")
    if not isinstance(rows, list):
        raise TuningError(f"votes: got {short_repr(rows)}; expected a list")
    if len(rows) > MAX_VOTES:
        raise TuningError(f"votes: {len(rows):,} of them; at most {MAX_VOTES:,} are read")
    votes = _each(rows, lambda row: _vote(row, voter))
    return VoteFile(path, identity, title, voter, votes)


def _each(rows: Sequence[Any], read: Callable[[Any], Vote]) -> tuple[Vote, ...]:
    found, wrong = [], []
    for number, row in enumerate(rows):
        try:
            found.append(read(row))
        except TuningError as error:
            wrong.append(f"votes.{number}: {error}")
    if wrong:
        raise TuningError("\n  ".join(first_lines(wrong, MAX_REPORTED)))
    return tuple(found)


def _vote(row: Any, voter: str) -> Vote:
    if not isinstance(row, dict):
        raise TuningError(f"got {short_repr(row)}; expected an object")
    prompt, control = row.get("prompt"), row.get("control")
    if type(prompt) is not int or not 0 <= prompt < MAX_PROMPT:
        raise TuningError(f"prompt: got {short_repr(prompt)}; expected a number from 0 up")
    choice = row.get("choice")
    if choice not in CHOICES:
        raise TuningError(f"choice: got {short_repr(choice)}; allowed: {', '.join(CHOICES)}")
    if type(control) is not bool:
        raise TuningError(f"control: got {short_repr(control)}; expected true or false")
    left, right = _text("left", row.get("left")), _text("right", row.get("right"))
    if control != (left == right):
        raise TuningError(
            f"left and right are {short_repr(left)} and {short_repr(right)} with control "
            f"{str(control).lower()}; only a control pair shows one side twice"
        )
    return Vote(voter, prompt, left, right, cast("Choice", choice), control, _time(row.get("at")))


def _text(name: str, value: Any, *, empty: bool = False) -> str:
    """Return a text without invisible characters; refuse what cannot be printed."""
    if not isinstance(value, str) or has_lone_surrogate(value):
        raise TuningError(f"{name}: got {short_repr(value)}; expected a text")
    text = "".join(letter for letter in cleaned(value) if letter.isprintable())
    if len(text) > MAX_TEXT:
        raise TuningError(f"{name}: a text of {len(text)} characters; at most {MAX_TEXT}")
    if not (text or empty):
        raise TuningError(f"{name}: got {short_repr(value)}; expected a text")
    return text


def _time(value: Any) -> datetime:
    """Read a time as JavaScript writes it; one without a zone is taken as UTC."""
    wrong = TuningError(
        f"at: got {short_repr(value)}; expected a time such as 2026-11-30T12:00:00.000Z"
    )
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise wrong
    try:
        time = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError as error:
        raise wrong from error
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def pairs_of(votes: Iterable[Vote]) -> list[Vote]:
    """Return the votes on pairs of two different sides, without control pairs."""
    return [vote for vote in votes if not vote.control]

"""Vote files: reading, adding up, and refusal of what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.statistics import votes as module
from reward_tuning.statistics.votes import checked_votes, read_vote_file, read_votes
from tests.reward_tuning.statistics.vote_files import content, vote, write_votes

EARLY, LATE = "2026-11-30T10:00:00.000Z", "2026-11-30T12:00:00+01:00"  # 11:00 UTC


def test_reads_a_file(tmp_path: Path) -> None:
    path = write_votes(
        tmp_path / "a.json",
        [vote(3, "left"), vote(4, "left", left="tuned", right="base"), vote(5, "bad")],
        voter=" Ann\u200b ",
    )
    found = read_votes([path])
    assert (found.report, found.title, found.voters) == ("r1", "a run", ("Ann",))
    assert [(one.prompt, one.chosen) for one in found.votes] == [
        (3, "base"),
        (4, "tuned"),
        (5, "bad"),
    ]
    assert found.replaced == 0


def test_the_last_vote_on_a_pair_counts(tmp_path: Path) -> None:
    """By its time, whichever side was left, in whichever file; other voters keep theirs."""
    first = write_votes(tmp_path / "a.json", [vote(0, "left", at=LATE)], voter="Ann")
    again = [vote(0, "left", left="tuned", right="base", at=EARLY), vote(1, "tie", at=EARLY)]
    second = write_votes(tmp_path / "b.json", again, voter="Ann")
    third = write_votes(tmp_path / "c.json", [vote(0, "right", at=EARLY)], voter="Ben")
    found = read_votes([first, second, third])
    assert found.voters == ("Ann", "Ben")
    assert found.replaced == 1
    chosen = {(one.voter, one.prompt): one.chosen for one in found.votes}
    assert chosen == {("Ann", 0): "base", ("Ann", 1): "tie", ("Ben", 0): "tuned"}


def test_a_control_pair_is_another_pair(tmp_path: Path) -> None:
    rows = [vote(0, "left"), vote(0, "right", right="base", control=True)]
    found = read_votes([write_votes(tmp_path / "a.json", rows)])
    assert [one.chosen for one in found.votes] == ["base", "right"]
    assert len(module.pairs_of(found.votes)) == 1


def test_files_without_a_name_are_voters_of_their_own(tmp_path: Path) -> None:
    paths = [
        write_votes(tmp_path / "a.json", [vote(0, "left")]),
        write_votes(tmp_path / "b.json", [vote(0, "left")]),  # a copy
        write_votes(tmp_path / "c.json", [vote(0, "right")]),
        write_votes(tmp_path / "d.json", [vote(0, "right")], voter="voter 1"),
    ]
    found = read_votes(paths)
    assert found.voters == ("voter 1*", "voter 3", "voter 1")
    assert [one.chosen for one in found.votes] == ["base", "tuned", "tuned"]


def test_files_of_different_reports_are_refused(tmp_path: Path) -> None:
    paths = [
        write_votes(tmp_path / "a.json", [vote(0, "left")]),
        write_votes(tmp_path / "b.json", [vote(0, "left")], report="r2"),
    ]
    with pytest.raises(TuningError, match="different reports"):
        read_votes(paths)
    with pytest.raises(TuningError, match="no vote file"):
        read_votes([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a vote file"),
        ({"version": 2}, "version 2 of the format"),
        ({"version": True}, "version True"),
        ({"report": "r1"}, "report: got 'r1'"),
        ({"report": {"id": "", "title": ""}}, "report.id"),
        ({"report": {"id": "r1", "title": 3}}, "report.title: got 3"),
        ({"voter": None}, "voter: got None"),
        ({"voter": "a" * 201}, "201 characters"),
        ({"voter": "\ud800"}, "voter"),
        ({"votes": {}}, "expected a list"),
        ({"votes": [7]}, "votes.0: got 7"),
    ],
)
def test_a_wrong_file_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TuningError, match=message):
        checked_votes(content([]) | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": -1}, "prompt: got -1"),
        ({"prompt": True}, "prompt: got True"),
        ({"prompt": 1.0}, r"prompt: got 1\.0"),
        ({"choice": "both"}, "choice: got 'both'; allowed: left, right, tie, bad"),
        ({"choice": ["left"]}, "choice"),
        ({"control": 0}, "control: got 0"),
        ({"control": True}, ".*only a control pair"),
        ({"right": "base"}, ".*only a control pair"),
        ({"left": ""}, "left: got ''"),
        ({"at": "yesterday"}, "at: got 'yesterday'"),
        ({"at": 5}, "at: got 5"),
    ],
)
def test_a_wrong_vote_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TuningError, match=rf"votes\.1: {message}"):
        checked_votes(content([vote(0, "left"), vote(1, "left") | change]))


def test_many_wrong_votes_are_counted() -> None:
    with pytest.raises(TuningError, match="and 7 more"):
        checked_votes(content([vote(0, "none")] * 12))


def test_names_lose_what_cannot_be_printed() -> None:
    found = checked_votes(content([vote(0, "left", left="ba\x1b[31mse")], voter="A\nB"))
    assert (found.voter, found.votes[0].left) == ("AB", "ba[31mse")


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000, '{"version": ' + "9" * 5000])
def test_a_file_that_is_not_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(TuningError, match=r"not (valid JSON|UTF-8|a vote).*vote page has saved"):
        read_vote_file(path)


def test_a_missing_or_large_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TuningError, match="cannot read the vote file"):
        read_vote_file(tmp_path / "none.json")
    path = write_votes(tmp_path / "a.json", [vote(0, "left")])
    monkeypatch.setattr(module, "MAX_BYTES", 20)
    with pytest.raises(TuningError, match="no vote file"):
        read_vote_file(path)
    monkeypatch.setattr(module, "MAX_VOTES", 1)
    with pytest.raises(TuningError, match="2 of them; at most 1"):
        checked_votes(json.loads(json.dumps(content([vote(0, "left"), vote(1, "left")]))))


def test_too_many_sides_are_refused(tmp_path: Path) -> None:
    rows = [vote(i, "left", right=f"s{i}") for i in range(module.MAX_SIDES)]
    assert len(read_votes([write_votes(tmp_path / "few.json", rows[1:])]).votes) == 99
    with pytest.raises(TuningError, match="votes on 101 sides; at most 100 are compared"):
        read_votes([write_votes(tmp_path / "many.json", rows)])

"""`reward-tuning votes`: the table, its JSON, and files that are no votes."""

import json
from pathlib import Path

import pytest

from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.statistics.vote_files import vote, write_votes

run = pytest.fixture(command, name="run")


def two_voters(folder: Path) -> list[Path]:
    rows = [vote(i, "right") for i in range(9)] + [vote(9, "tie"), vote(10, "bad")]
    rows += [vote(i, "left", right="base", control=True) for i in range(3)]
    return [
        write_votes(folder / "ann.json", [*rows, vote(0, "left", at="2026-11-29")], voter="Ann"),
        write_votes(folder / "ben.json", rows[:5], voter="[bold]Ben"),
    ]


def test_table(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = run("votes", *two_voters(tmp_path))
    assert (done.code, done.err) == (0, "")
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert lines[0] == "a run: 16 votes on 11 prompts, against base"
    row = next(line for line in lines if line.startswith("tuned"))
    assert row.startswith("tuned 14 0 1 1 97 % [")
    assert row.endswith("preferred")
    assert any(line.endswith("in brackets: 95 % intervals") for line in lines)
    assert any(line.startswith("Bradley-Terry score of tuned, in log odds: +") for line in lines)
    assert "1 earlier vote on the same pairs does not count" in lines
    assert any(line.startswith("control pairs: 3 votes; left 100 % [29, 100]") for line in lines)
    assert any(
        line.startswith("[bold]Ben: 5 votes, 0 ties, 0 bad; control pairs: none") for line in lines
    )
    assert any(line.startswith("alike votes on 5 pairs of several voters: 100 %") for line in lines)


def test_json(run: Command, tmp_path: Path) -> None:
    found = json.loads(run("votes", *two_voters(tmp_path), "--json").out)
    assert found["report"] == {"id": "r1", "title": "a run"}
    assert found["sides"][0]["win_rate"]["votes"] == 15
    assert found["sides"][0]["score"]["low"] > 0.0
    assert found["control"]["votes"] == 3
    assert [voter["name"] for voter in found["voters"]] == ["Ann", "[bold]Ben"]


def test_a_file_that_is_no_vote_file(run: Command, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"prompts": 3}')
    missing = run("votes", tmp_path / "b.json")
    assert missing.code == 2
    assert "give a file that a report's vote page has saved" in missing.err
    done = run("votes", tmp_path / "a.json")
    assert done.code == 2
    assert "not a vote file" in done.err
    assert "vote page has saved" in done.err

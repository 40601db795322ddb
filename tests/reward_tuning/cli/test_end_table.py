"""The result table: its groups, and the lines below it."""

from pathlib import Path

import pytest

from reward_tuning.cli.end_table import lines_below, table_rows
from tests.reward_tuning.cli.finished_run import finished_run
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")
folder = pytest.fixture(finished_run, name="folder")


def test_table(run: Command, folder: Path) -> None:
    out = run("show", folder).out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[lines.index("trained on") + 1] == (
        "hps 0.8289 0.8333 +0.0044 +0.0027 to +0.0061 higher"
    )
    assert lines[lines.index("never trained on") + 1].startswith("clip_held_out *")
    assert lines[lines.index("never trained on") + 1].endswith("no change seen")
    assert lines[lines.index("oracle") + 1] == (
        "all right 41.0 % 59.0 % +18.0 +9.9 to +26.6 higher"
    )
    assert lines[lines.index("oracle") + 2].startswith("shape right")
    assert lines[lines.index("oracle") + 3] == (
        "background off 0.0500 0.0400 -0.0100 -0.0200 to -0.0010 may be chance"
    )
    assert "renders of the same prompts score: hps 0.8600" in lines
    assert lines[lines.index("measures") + 1].endswith("lower")
    assert "no change seen on any of the 128 prompts: oracle: colour right 100.0 %" in lines
    assert not any(line.startswith("colour right") for line in lines)
    assert any(
        line.startswith("oracle: share of clips that are right, by functions") for line in lines
    )
    table, _, below = out.partition(
        "No change seen by the held-out judge `clip_held_out`: -0.00010"
    )
    assert table
    assert " ".join(below.split()).startswith(
        "[-0.00100, +0.00090] on 128 prompts (95 % interval). A change within it may have "
        "happened. "
        "*: 7 metrics compared; clip_held_out decides (named beforehand); verdicts on the other 6 "
        "allow for their number (Holm), intervals do not"
    )
    assert "trained on: a rise there proves nothing" in lines
    assert max(map(len, table.splitlines())) <= 80


def test_a_table_without_roles_and_with_a_value_that_is_not_finite() -> None:
    change = {"mean": None, "low": None, "high": None, "up": 0, "down": 0}
    found = {
        "prompts": 32,
        "base": {"hps": 0.5},
        "tuned": {"hps": None},
        "difference": {"hps": change},
    }
    assert table_rows(found) == [("hps", "0.5000", "-", "-", "- to -", "not measured")]
    assert lines_below(found)[:2] == [
        "No metric was named that decides: see the table.",
        "1 metric compared",
    ]

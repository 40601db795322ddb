"""The result table: its verdicts, its groups, and the lines below it."""

from pathlib import Path

import pytest

from reward_tuning.cli.end_table import verdict
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
    assert lines[lines.index("never trained on") + 1].startswith("clip_held_out")
    assert lines[lines.index("never trained on") + 1].endswith("no change seen")
    assert lines[lines.index("oracle") + 1] == (
        "all right 41.0 % 59.0 % +18.0 +9.9 to +26.6 higher"
    )
    assert lines[lines.index("oracle") + 2].startswith("shape right")
    assert lines[lines.index("oracle") + 3].startswith("background off 0.0500 0.0400 -0.0100")
    assert "renders of the same prompts score: hps 0.8600" in lines
    assert lines[lines.index("measures") + 1].endswith("lower")
    assert "no change seen on any of the 128 prompts: oracle_colour 100.0 %" in lines
    assert not any(line.startswith("colour right") for line in lines)
    assert any(
        line.startswith("oracle: share of clips that are right, by functions") for line in lines
    )
    table = out.partition("\nno change")[0]
    assert max(map(len, table.splitlines())) <= 80


@pytest.mark.parametrize(
    ("low", "high", "prompts", "said"),
    [
        (0.1, 0.2, 32, "higher"),
        (-0.2, -0.1, 32, "lower"),
        (-0.1, 0.1, 32, "no change seen"),
        (0.0, 0.0, 32, "no change seen"),
        (-0.1, 0.0, 128, "no change seen"),
        (0.1, 0.2, 7, "too few prompts"),
        (0.1, 0.2, 8, "higher"),
    ],
)
def test_verdicts(low: float, high: float, prompts: int, said: str) -> None:
    assert verdict(low, high, prompts) == said

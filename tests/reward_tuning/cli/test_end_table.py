"""The end table: its words, its groups, what is folded, and what is said below and next."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.cli import VERBS
from reward_tuning.cli.end_table import verdict
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.recipes_for_tests import write_recipe

run = pytest.fixture(command, name="run")


def change(mean: float, low: float, high: float, up: int, down: int) -> dict[str, float]:
    return {"mean": mean, "low": low, "high": high, "up": up, "down": down}


FOUND: dict[str, Any] = {
    "start": "base",
    "trained_on": ["hps"],
    "never_trained_on": ["clip_held_out"],
    "prompts": 128,
    "seeds": 1,
    "base": {
        "hps": 0.8289,
        "clip_held_out": 0.5191,
        "motion": 0.0101,
        "oracle": 0.41,
        "oracle_shape": 0.41,
        "oracle_colour": 1.0,
        "oracle_tone_off": 0.05,
    },
    "tuned": {
        "hps": 0.8333,
        "clip_held_out": 0.5190,
        "motion": 0.0098,
        "oracle": 0.59,
        "oracle_shape": 0.59,
        "oracle_colour": 1.0,
        "oracle_tone_off": 0.04,
    },
    "difference": {
        "hps": change(0.0044, 0.0027, 0.0061, 90, 38),
        "clip_held_out": change(-0.0001, -0.001, 0.0009, 60, 68),
        "motion": change(-0.0003, -0.0005, -0.0001, 40, 88),
        "oracle": change(0.18, 0.099, 0.266, 30, 7),
        "oracle_shape": change(0.18, 0.099, 0.266, 30, 7),
        "oracle_colour": change(0.0, -0.0284, 0.0284, 0, 0),
        "oracle_tone_off": change(-0.01, -0.02, -0.001, 30, 98),
    },
    "rendered": {"hps": 0.86, "oracle": 1.0},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run in a folder whose name a shell would split."""
    write_recipe(tmp_path / "a run")
    (tmp_path / "a run" / "evaluation.json").write_text(json.dumps(FOUND))
    (tmp_path / "a run" / "samples").mkdir()
    told = [{"file": "00.mp4", "prompt": "a star, it's red", "seed": 1}]
    (tmp_path / "a run" / "samples" / "prompts.json").write_text(json.dumps(told))
    return tmp_path / "a run"


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


def test_next_commands(run: Command, folder: Path) -> None:
    found = json.loads(run("show", folder, "--json").out)
    assert found["evaluation"] == FOUND
    assert found["verdicts"]["hps"] == "higher"
    verbs = {verb.__name__ for verb in VERBS}
    words = [shlex.split(line) for line in found["next"]]
    assert all(first == "reward-tuning" and verb in verbs for first, verb, *_ in words)
    assert [verb for _, verb, *_ in words] == ["show", "generate", "export"]
    assert all(str(folder) in line for line in words)
    assert "a star, it's red" in words[1]
    assert words[1][2:4] == ["--checkpoint", "owner/model"]
    assert "\n".join(f"  {line}" for line in found["next"]) in run("show", folder).out


def test_next_commands_name_a_program_that_is_not_on_the_path(
    run: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "a venv" / "bin" / "reward-tuning"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(program)])
    monkeypatch.setenv("PATH", str(tmp_path))
    commands = json.loads(run("show", folder, "--json").out)["next"]
    assert {shlex.split(line)[0] for line in commands} == {str(program)}
    monkeypatch.setenv("PATH", str(program.parent))
    commands = json.loads(run("show", folder, "--json").out)["next"]
    assert {shlex.split(line)[0] for line in commands} == {"reward-tuning"}


def test_show_json_of_a_recipe_and_of_a_run_under_way(run: Command, folder: Path) -> None:
    found = json.loads(run("show", "tiny-drtune-hps", "--json").out)
    assert found["recipe"]["rewards"][0]["kind"] == "hps"
    assert Path(found["path"]).is_file()
    (folder / "evaluation.json").unlink()
    told = {"run": str(folder), "finished": False, "steps": 10, "last": None}
    assert json.loads(run("show", folder, "--json").out) == told
    (folder / "metrics.jsonl").write_text('{"step": 3, "loss": 0.5}\n{"step": 4, "lo')
    assert json.loads(run("show", folder, "--json").out)["last"] == {"step": 3, "loss": 0.5}


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

"""The summary of a run: its files, the next commands, an unfinished run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.cli import VERBS
from reward_tuning.cli.summary import print_run, progress_line, summary
from reward_tuning.errors import TuningError
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.runs.folder import RunFolder
from tests.reward_tuning.cli.finished_run import FOUND, finished_run
from tests.reward_tuning.command_line import Command, command


@pytest.mark.parametrize("content", [{}, [], "text", {"base": {}}])
def test_an_evaluation_without_sides(tmp_path: Path, content: Any) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(TuningError, match=r"evaluation\.json is damaged"):
        summary(tmp_path)


run = pytest.fixture(command, name="run")
folder = pytest.fixture(finished_run, name="folder")


def test_next_commands(run: Command, folder: Path) -> None:
    found = json.loads(run("show", folder, "--json").out)
    assert found["evaluation"] == FOUND
    assert found["verdicts"]["hps"] == "higher"
    assert found["verdict"].startswith("No change seen by the held-out judge `clip_held_out`")
    verbs = {verb.__name__ for verb in VERBS}
    words = [shlex.split(line) for line in found["next"]]
    assert all(first == "reward-tuning" and verb in verbs for first, verb, *_ in words)
    assert [verb for _, verb, *_ in words] == ["report", "generate", "evaluate", "export"]
    assert all(str(folder) in line for line in words)
    assert "a star, it's red" in words[1]
    assert words[1][2:4] == ["--checkpoint", "owner/model"]
    assert "\n".join(f"  {line}" for line in found["next"]) in run("show", folder).out


def test_clips_are_generated_as_the_run_was_evaluated(folder: Path) -> None:
    recipe = read_yaml((folder / "recipe.yaml").read_text())
    recipe["sampling"] |= {"steps": 16, "guidance_scale": 4.5}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    (folder / "evaluation").mkdir()
    found = summary(folder)
    assert " --steps 16 --guidance-scale 4.5 --prompt " in found["next"][1]
    assert found["places"]["clips"] == str(folder / "evaluation")
    assert found["places"]["samples"] == str(folder / "samples")
    recipe["evaluation"] = recipe.get("evaluation", {}) | {"steps": 8}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    assert " --steps 8 --guidance-scale 4.5 --prompt " in summary(folder)["next"][1]
    recipe["evaluation"] |= {"guidance_steps": [0.2, 0.9]}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    assert " --guidance-scale 4.5 --guidance-steps 0.2 0.9 --prompt " in summary(folder)["next"][1]


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


def test_an_unfinished_run_says_how_far_it_is(
    run: Command, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "evaluation.json").unlink()
    resume = f"resume with: reward-tuning resume {shlex.quote(str(folder))}\n"
    assert run("show", folder).out == f"{folder}: no step of 10 is finished\n{resume}"
    (folder / "metrics.jsonl").write_text('{"step": 3, "loss": null}\n{"step": 4, "lo')
    assert progress_line(folder) == f"{folder}: not finished, step 3 of 10, loss not finite"
    (folder / "metrics.jsonl").write_text('{"step": 3, "loss": 0.5}\n')
    print_run(folder)
    assert capsys.readouterr().out == f"{folder}: not finished, step 3 of 10, loss 0.5000\n{resume}"


def test_a_run_in_progress_is_running(run: Command, folder: Path) -> None:
    (folder / "evaluation.json").unlink()
    (folder / "metrics.jsonl").write_text('{"step": 3, "loss": 0.5}\n')
    with RunFolder(folder).locked():
        told = run("show", folder).out
        assert json.loads(run("show", folder, "--json").out)["running"] is True
        exported = run("export", folder, "--output", folder / "x.safetensors").err
    watch = f"reward-tuning watch {shlex.quote(str(folder))}"
    assert told == (f"{folder}: is running, step 3 of 10, loss 0.5000\nfollow it with: {watch}\n")
    assert "it is running; wait until it ends" in exported
    assert watch in exported


def test_a_run_of_several_processes_is_resumed_in_as_many(run: Command, folder: Path) -> None:
    (folder / "evaluation.json").unlink()
    kept = folder / "recipe.yaml"
    kept.write_text("# torch 2.0\n# processes 2\n" + kept.read_text())
    told = run("show", folder).out
    assert "resume with: torchrun --nproc_per_node 2 -m reward_tuning.cli resume " in told


def test_a_damaged_result_of_a_fine_tuning(run: Command, folder: Path) -> None:
    (folder / "finetune.json").write_text("{")
    done = run("show", folder)
    assert (done.code, done.out) == (2, "")
    assert "finetune.json is damaged" in done.err

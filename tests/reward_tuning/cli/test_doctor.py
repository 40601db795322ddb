"""The verb: lines, JSON, exit codes, and what is shown of a recipe."""

import json
import re
import sys
from pathlib import Path

import pytest

from reward_tuning.doctor.facts import Fact
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.doctor.sound_machine import sound_machine
from tests.reward_tuning.recipes_for_tests import write_recipe

run = pytest.fixture(command, name="run")


def told(monkeypatch: pytest.MonkeyPatch, *facts: Fact) -> None:
    """Let the machine have these facts."""
    module = __import__("reward_tuning.doctor.examination", fromlist=["examine"])
    monkeypatch.setattr(module, "examine", lambda recipe: list(facts))
    assert "reward_tuning.doctor.examination" in sys.modules


def test_lines(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    told(
        monkeypatch,
        Fact("machine", "memory", "25 GB"),
        Fact("machine", "open files", "at most 256", "note", "ulimit -n 4096"),
        Fact("devices", "cuda", "none", "problem", "buy one"),
    )
    done = run("doctor")
    assert done.code == 1
    assert done.out == (
        "machine\n"
        "  ok       memory      25 GB\n"
        "  note     open files  at most 256\n"
        "                       -> ulimit -n 4096\n"
        "\n"
        "devices\n"
        "  problem  cuda        none\n"
        "                       -> buy one\n"
        "\n"
        "1 problem and 1 note\n"
    )
    assert done.err == ""


def test_notes_are_no_problem(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, Fact("machine", "open files", "at most 256", "note", "ulimit -n 4096"))
    done = run("doctor", "--json")
    assert done.code == 0
    assert json.loads(done.out) == {
        "recipe": None,
        "ok": True,
        "facts": [
            {
                "group": "machine",
                "name": "open files",
                "value": "at most 256",
                "mark": "note",
                "todo": "ulimit -n 4096",
            }
        ],
    }


def test_a_recipe_of_the_package(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound_machine(monkeypatch)
    done = run("doctor", "tiny-demo", f"output={tmp_path / 'run'}")
    assert done.code == 0, done.out
    assert re.search(r"^  ok +judge hps +tiny/hps\.safetensors, at ", done.out, re.MULTILINE)
    assert "0 problems" in done.out
    shown = f"tiny-demo output={tmp_path / 'run'}"
    assert done.out.endswith(
        f"validate {shown}\nIts memory and work: reward-tuning estimate {shown}\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_recipe_whose_needs_are_not_met(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    sound_machine(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    path = write_recipe(tmp_path, generator__checkpoint="tiny", generator__dtype="float32")
    done = run("doctor", path, "--json")
    assert done.code == 1
    answer = json.loads(done.out)
    assert not answer["ok"]
    wrong = [fact for fact in answer["facts"] if fact["mark"] == "problem"]
    assert [fact["name"] for fact in wrong] == ["judge hps", "judge clip_held_out"]
    assert wrong[0]["todo"].startswith("hf download xswu/HPSv2")


def test_a_recipe_with_a_mistake_is_an_error(run: Command) -> None:
    done = run("doctor", "tiny-demo", "train.stepps=3")
    assert done.code == 2
    assert done.out == ""
    assert "did you mean" in done.err or "unknown key" in done.err

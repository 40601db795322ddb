"""What a wrong name and a broken recipe are answered, and how torch's threads wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.recipes_for_tests import write_recipe

run = pytest.fixture(command, name="run")


def test_a_name_that_is_none_is_told_with_the_likely_one(run: Command, tmp_path: Path) -> None:
    assert "no recipe 'tiny-dmeo'" in run("validate", "tiny-dmeo").err
    assert "did you mean tiny-demo? " in run("validate", "tiny-dmeo").err
    assert "did you mean" not in run("validate", "whale").err
    assert "nor a file nor a run folder; " in run("show", "runs/gone").err
    recipe = write_recipe(tmp_path)
    prompts = run("validate", recipe, "prompts.train=tiny/trian.jsonl").err
    assert "did you mean tiny/train.jsonl? " in prompts
    judge = run("validate", recipe, "rewards.0.checkpoint=tiny/hpsv.safetensors").err
    assert "did you mean tiny/hps" in judge


@pytest.mark.parametrize("verb", [["validate"], ["show", "--json"], ["run"], ["cp", "to.yaml"]])
def test_what_is_no_yaml_is_told_with_its_file(
    run: Command, tmp_path: Path, verb: list[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("seed: 1\nseed: 2\n", encoding="utf-8")
    err = run(verb[0], str(path), *verb[1:]).err
    assert f"{path}: line 2: the key `seed` stands in line 1 already" in err


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, "5000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
        ({"GOMP_SPINCOUNT": "9"}, "9"),
    ],
)
def test_threads_spin_shortly_unless_the_environment_decides(
    given: dict[str, str], spins: str
) -> None:
    code = (
        "import atexit, os, sys\n"
        "from reward_tuning.cli import script\n"
        "told = lambda: print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)\n"
        "atexit.register(told)\n"
        "sys.argv = ['reward-tuning', '--version']\n"
        "script()\n"
    )
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept | given
    )
    assert done.stdout.splitlines()[-1] == f"{spins} False"

"""calibrate: printed lines, the recipe it writes, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.schema.loading import load_recipe
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.tiny_run import TRAIN, tiny_recipe, write_world

BRIGHT = """
class Bright:
    reads_text = False
    def __call__(self, frames, prompts): return 2 * frames.mean(dim=(1, 2, 3, 4))
"""


_command = pytest.fixture(command, name="command")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    world = write_world(tmp_path_factory.mktemp("world"))
    (world / "bright.py").write_text(BRIGHT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.chdir(world)
        yield world


def test_the_verb(world: Path, tmp_path: Path, command: Command) -> None:
    tiny_recipe(world, tmp_path / "run")  # writes the file
    written = tmp_path / "mine.yaml"
    ran = command("calibrate", world / "recipe.yaml", "--prompts", 3, "--write", written, "--json")
    assert ran.code == 0
    found = json.loads(ran.out)
    (judge,) = found["judges"]
    mean, std = (float(f"{judge[key]:.4g}") for key in ("mean", "deviation"))
    assert found["overrides"] == [f"rewards.0.mean={mean}", f"rewards.0.std={std}"]
    again = load_recipe(written)
    assert (again.rewards[0].mean, again.rewards[0].std) == (mean, std)
    assert load_recipe(world / "recipe.yaml", found["overrides"]) == again
    table = command("calibrate", world / "recipe.yaml", "--prompts", 3).out
    assert f"rewards.0 (clip): mean: {mean}, std: {std}" in table
    usual = json.loads(command("calibrate", world / "recipe.yaml", "--json").out)
    assert usual["prompts"] == len(TRAIN)  # fewer than 32
    for more, said in (
        (["--write", written], "mine.yaml exists; give a new .yaml file"),
        (["--write", tmp_path / "x.json"], "does not end in .yaml"),
        (["--prompts", 6], "allowed is 2 ... 5, the number in prompts.train"),
    ):
        ran = command("calibrate", world / "recipe.yaml", *more)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err


run = pytest.fixture(command)
MINE = b"a clip of mine"


def test_calibrate_checks_the_output_before_it_samples(run: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(MINE)
    ran = run("calibrate", "tiny-draft-hps", "--write", tmp_path / "file/mine.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert "is not a folder" in ran.err
    assert "base clips" not in ran.err


def test_calibrate_refuses_all_that_it_uses_at_once(run: Command, world: Path) -> None:
    tiny_recipe(world, world / "run")
    (world / "blank.txt").write_text("\n")
    wrong = ("prompts.train=blank.txt", "rewards.0.checkpoint=owner/name/missing.safetensors")
    ran = run("calibrate", world / "recipe.yaml", *wrong)
    assert (ran.code, ran.out) == (2, "")
    for text in ("blank.txt has no prompt", "owner/name/missing.safetensors"):
        assert text in ran.err
    assert "base clips" not in ran.err


def test_calibrate_does_not_refuse_what_only_a_run_uses(
    run: Command, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    tiny_recipe(world, world / "run")
    (world / "blank.txt").write_text("\n")
    only_run = (
        "evaluation.held_out_rewards.0.checkpoint=owner/name/missing.safetensors",
        "evaluation.prompts=1",
        "prompts.held_out=blank.txt",
        "lora.init=judge",
        "train.optimiser=adamw-8bit",
    )
    refused = run("run", world / "recipe.yaml", *only_run)
    assert (refused.code, refused.out) == (2, "")
    ran = run("calibrate", world / "recipe.yaml", *only_run, "--prompts", 2, "--json")
    assert (ran.code, json.loads(ran.out)["prompts"]) == (0, 2)

"""mix: given weights, and the best of a grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from reward_tuning.lora.export import import_adapter
from reward_tuning.lora.module_shapes import transformer_shapes
from reward_tuning.schema.loading import load_recipe
from reward_tuning.tuning.trainer import run as train
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

run = pytest.fixture(command, name="run")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two runs of one generator that end in different adapters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        world = write_world(tmp_path_factory.mktemp("world"))
        root = tmp_path_factory.mktemp("runs")
        changes = ("train.steps=1", "evaluation.seeds=1", "evaluation.prompts=2")
        found = []
        for name, more in (("a", ()), ("b", ("train.learning_rate=0.02", "seed=9"))):
            recipe = tiny_recipe(world, root / name, *changes, *more)
            found.append(train(recipe).folder)
        yield found


def test_given_weights(run: Command, runs: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "mixed.safetensors"
    done = run("mix", *runs, "--weights", 0.7, 0.3, "--output", target)
    assert (done.code, done.out.strip()) == (0, str(target)), done.err
    assert f" --lora {target} --prompt " in done.err
    recipe = load_recipe(runs[0] / "recipe.yaml", check_files=False)
    shapes = transformer_shapes(recipe.generator.checkpoint)
    mixed, one, two = (
        import_adapter(path, shapes) for path in (target, runs[0] / "lora", runs[1] / "lora")
    )
    for path, (down, up) in mixed.state.items():
        expected = sum(
            share * weights.strength * weights.state[path][1] @ weights.state[path][0]
            for share, weights in ((0.7, one), (0.3, two))
        )
        assert torch.allclose(mixed.strength * up @ down, expected, atol=1e-6)
    again = run("mix", *runs, "--output", target)
    assert again.code == 2
    assert "--overwrite" in again.err


def test_best_of_a_grid(run: Command, runs: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "soup.safetensors"
    done = run("mix", *runs, "--grid", 2, "--output", target, "--device", "cpu")
    assert done.code == 0, done.err
    folder = tmp_path / "soup-grid"
    assert [path.name for path in (folder / "mixes").iterdir()] == ["mix-0.5-0.5.safetensors"]
    found = json.loads((folder / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    assert len(found["sides"]) == 4  # base, two runs, one mix
    means = [side["means"][found["primary"]] for side in found["sides"][1:]]
    names = ["mix-1-0", "mix-0-1", "mix-0.5-0.5"]
    best = names[max(range(3), key=lambda i: means[i])]
    assert f"best by {found['primary']}: {best}" in done.out
    assert "evaluate it on others" in done.out
    assert target.is_file()


def test_options_that_exclude_each_other(run: Command, runs: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "mixed.safetensors"
    both = run("mix", *runs, "--weights", 1, 1, "--grid", 2, "--output", target)
    assert "exclude each other" in both.err
    assert "must end in .safetensors" in run("mix", *runs, "--output", tmp_path / "x").err
    assert "1 LoRA to mix" in run("mix", runs[0], "--output", target).err
    trained = run("mix", *runs, "--grid", 2, "--primary", "clip", "--output", target)
    assert "no run was trained on, and clip decides" in trained.err
    assert not target.exists()

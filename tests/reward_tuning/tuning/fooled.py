"""Judges of pixels that a training can fool, and recipes that train on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

FORMULAS = {
    "bright": "frames.mean((1, 2, 3, 4))",
    "dark": "1 - frames.mean((1, 2, 3, 4))",
    "still": "-100 * frames.diff(dim=1).abs().mean((1, 2, 3, 4))",
}


def write_fooled(world: Path) -> None:
    """Write the judges as files of Python next to the recipe."""
    for name, formula in FORMULAS.items():
        (world / f"{name}.py").write_text(
            f"class Judge:\n    def __call__(self, frames, prompts):\n        return {formula}\n",
            encoding="utf-8",
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A generator, prompts and the judges, with a cache of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = write_world(tmp_path_factory.mktemp("world"))
        write_fooled(folder)
        yield folder


def judge(world: Path, name: str) -> str:
    """A judge of `FORMULAS`, as a recipe names it."""
    return f"{{kind: python, checkpoint: {world / f'{name}.py'}, name: {name}}}"


def fooled_overrides(world: Path, reward: str) -> tuple[str, ...]:
    """A short run on such a judge, with an evaluation of the guards every second step.

    The held-out judge is `dark`, which falls where brightness rises.
    """
    return (
        f"rewards=[{judge(world, reward)}]",
        f"evaluation.held_out_rewards=[{judge(world, 'dark')}]",
        "evaluation.seeds=1",
        "evaluation.prompts=3",
        "train.ema_decay=null",
        "train.steps=10",
        "train.checkpoint_every=4",
        "guards.every=2",
    )


def fooled_recipe(world: Path, output: Path, reward: str, *overrides: str) -> Recipe:
    """The recipe of such a run."""
    return tiny_recipe(world, output, *fooled_overrides(world, reward), *overrides)

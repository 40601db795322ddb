"""A trainer that stands in for training, which takes minutes, in tests of the command line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reward_tuning.progress import ProgressEvent
from reward_tuning.schema.loading import dump_recipe
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import write_recipe as write_any


def write_recipe(folder: Path) -> Path:
    """Write a recipe whose judges are shipped; a missing one would be refused."""
    judge = {"kind": "hps", "checkpoint": "tiny/hps.safetensors"}
    held_out = {"kind": "clip", "checkpoint": "tiny/clip.safetensors"}
    return write_any(folder, rewards=[judge], evaluation__held_out_rewards=[held_out])


EVALUATION = {
    "prompts": 32,
    "seeds": 2,
    "base": {"hps": 0.25, "clip_held_out": 0.3, "motion": 1.0},
    "tuned": {"hps": 0.29, "clip_held_out": 0.28, "motion": 1.01},
    "difference": {
        "hps": {"mean": 0.04, "low": 0.03, "high": 0.05, "p_adjusted": 0.01},
        "clip_held_out": {"mean": -0.02, "low": -0.03, "high": -0.01, "p_adjusted": 0.01},
        "motion": {"mean": 0.01, "low": -0.2, "high": 0.2, "p_adjusted": 0.9},
    },
}


def finished(folder: Path, recipe: Recipe) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    (folder / "metrics.jsonl").touch()
    (folder / "lora").mkdir(exist_ok=True)


Calls = list[tuple[Recipe, bool]]
Trainer = Callable[[Callable[[Recipe], None]], Calls]


def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """Return a function that installs a fake trainer and returns the list of its calls."""

    def put(work: Callable[[Recipe], None]) -> Calls:
        calls: Calls = []
        module = ModuleType("reward_tuning.tuning.trainer")

        def run(recipe: Recipe, *, resume: bool, progress: Any) -> None:
            calls.append((recipe, resume))
            progress(ProgressEvent("training", 1, 4, "sweep", {"reward": 0.25}))
            work(recipe)

        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "reward_tuning.tuning.trainer", module)
        return calls

    return put

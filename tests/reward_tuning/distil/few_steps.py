"""A whole distillation in seconds: real classes with random weights, real judge, real recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reward_tuning.distil.recipe import DistilRecipe, load_distil_recipe
from reward_tuning.files.yaml_text import write_yaml

RECIPE: dict[str, Any] = {
    "seed": 3,
    "output": "run",
    "generator": {"checkpoint": "generator", "dtype": "float32"},
    "prompts": {"train": "train.txt", "held_out": "held.txt"},
    "teacher": {"steps_per_phase": 2, "guidance_scale": 3.0},
    "student": {"steps": 3, "frames": 5, "height": 32, "width": 32},
    "lora": {"rank": 2, "alpha": 2, "targets": "attention"},
    "train": {
        "steps": 4,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "ema_decay": 0.9,
        "checkpoint_every": 2,
    },
    "evaluation": {
        "prompts": 3,
        "steps": 5,
        "few_steps": False,
        "batch_size": 4,
        "held_out_rewards": [{"kind": "clip", "checkpoint": "held-out/flat.safetensors"}],
    },
}


def small_recipe(world: Path, output: Path, *overrides: str) -> DistilRecipe:
    """The recipe in a world of `tests.reward_tuning.tiny_run`, with `key.sub=value` changes."""
    path = world / "distil.yaml"
    if not path.exists():
        path.write_text(write_yaml(RECIPE), encoding="utf-8")
    return load_distil_recipe(path, [f"output={output}", *overrides])

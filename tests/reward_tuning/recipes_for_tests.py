"""A recipe whose files all exist, as plain data and as a file; the mistakes of one."""

import copy
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.files.yaml_text import write_yaml
from reward_tuning.schema.loading import load_recipe

RECIPE: dict[str, Any] = {
    "seed": 3,
    "output": "runs/a",
    "generator": {"checkpoint": "owner/model", "dtype": "bfloat16"},
    "prompts": {"train": "train.txt", "held_out": "held.txt"},
    "sampling": {
        "steps": 16,
        "guidance_scale": 5.0,
        "frames": 9,
        "height": 64,
        "width": 96,
    },
    "method": {"kind": "drtune", "active_steps": 4},
    "rewards": [{"kind": "hps", "checkpoint": "hps-v2.1", "weight": 2.0}],
    "lora": {"rank": 8, "alpha": 4, "targets": "attention"},
    "train": {"steps": 10, "batch_size": 2, "learning_rate": 3e-4},
    "evaluation": {
        "prompts": 2,
        "held_out_rewards": [{"kind": "clip", "checkpoint": "clip-vit-h-14"}],
    },
}


def recipe_data(**changes: Any) -> dict[str, Any]:
    """The recipe with `section__key=value` changes."""
    data = copy.deepcopy(RECIPE)
    for path, value in changes.items():
        *sections, key = path.split("__")
        holder = data
        for section in sections:
            holder = holder[section]
        holder[key] = value
    return data


def write_recipe(folder: Path, text: str | None = None, **changes: Any) -> Path:
    """Write the recipe with its prompt files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.txt").write_text("a red ball\na blue cube\na dog\n", encoding="utf-8")
    (folder / "held.txt").write_text("a green star\na cat\n", encoding="utf-8")
    path = folder / "recipe.yaml"
    path.write_text(write_yaml(recipe_data(**changes)) if text is None else text, encoding="utf-8")
    return path


def told(path: Path, *overrides: str) -> list[str]:
    """Lines of the error, without the first."""
    with pytest.raises(TuningError) as caught:
        load_recipe(path, overrides)
    first, *rest = str(caught.value).splitlines()
    count = len(rest)
    assert first == f"{count} mistake{'s' if count > 1 else ''} in {path}"
    return [line.strip() for line in rest]


def told_once(path: Path, *overrides: str) -> str:
    (line,) = told(path, *overrides)
    return line

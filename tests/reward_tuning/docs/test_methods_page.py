"""docs/methods.md: the table that reproduces papers holds settings that a recipe takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from base_model.sampling.sigmas import sigma_table
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.gradient.methods import METHODS
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import recipe_data

PAGE = (Path(__file__).parents[3] / "docs" / "methods.md").read_text(encoding="utf-8")
PART = PAGE.split("## To reproduce the paper, set")[1].split("\n## ")[0]
ROWS = [
    re.split(r" (?<!\\)\| ", line.strip("| \n")) for line in PART.splitlines() if "| `{" in line
]
LATENT = {"kind": "latent", "checkpoint": "tiny/latent-clip.safetensors"}


def cell(text: str) -> dict[str, object]:
    found = read_yaml(text.strip("`* "))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("row", [row for row in ROWS if "kind:" in row[1]], ids=lambda row: row[0])
def test_method_and_sampling(row: list[str]) -> None:
    method, sampling = cell(row[1]), cell(row[2])
    rewards = {"rewards": [LATENT]} if method["kind"] == "prfl" else {}
    settings = {f"sampling__{key}": value for key, value in sampling.items()}
    settings |= {"train__clips_per_prompt": 2} if METHODS[str(method["kind"])].matches else {}
    recipe = Recipe.model_validate(recipe_data(method=method, **settings, **rewards))
    plan = recipe.method.plan(torch.Generator(), sigma_table(recipe.sampling.steps))
    assert plan.steps == recipe.sampling.steps


@pytest.mark.parametrize(
    "row", [row for row in ROWS if "learning_rate" in row[1]], ids=lambda row: row[0]
)
def test_train(row: list[str]) -> None:
    settings = {f"train__{key}": value for key, value in cell(row[1]).items()}
    Recipe.model_validate(recipe_data(**settings))
    assert len(row) == 6


def test_every_method_has_a_row_and_a_section() -> None:
    named = {cell(row[1])["kind"] for row in ROWS if "kind:" in row[1]}
    assert named == set(METHODS)
    plans = PAGE.split("## The plans")[1].split("### Steps that matter")[0]
    assert set(re.findall(r"^\| `(\w+)`", plans, flags=re.MULTILINE)) == set(METHODS)

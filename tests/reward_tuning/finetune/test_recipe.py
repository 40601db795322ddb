"""Shipped recipes of fine-tunings load, and mistakes in one's own are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from base_model.core.tokens import BUDGETS
from reward_tuning.errors import TuningError
from reward_tuning.evidence.any_recipe import load_any_recipe
from reward_tuning.files.yaml_text import write_yaml
from reward_tuning.finetune.recipe import load_finetune_recipe
from reward_tuning.finetune.training_set import batch_sizes
from reward_tuning.schema.loading import dump_recipe, load_recipe
from reward_tuning.schema.locate import finetune_recipes, header_lines
from tests.reward_tuning.finetune.clip_folder import RECIPE

NAMES = [recipe.name for recipe in finetune_recipes()]


def test_a_recipe_for_each_stage() -> None:
    assert {name.removeprefix("finetune/") for name in NAMES} == {
        "tiny-lora",
        "easyanimate-v5.1-7b-lora",
        "stage-1-images",
        "stage-2-3328",
        "stage-3-13312-t2v",
        "stage-4-13312-i2v",
        "stage-5-53248-i2v",
        "control",
        "camera",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_loads_and_says_whether_it_was_run(name: str, tmp_path: Path) -> None:
    recipe = load_finetune_recipe(name, check_files=False)
    assert recipe.output == f"runs/{name.replace('/', '-')}"
    sizes = batch_sizes(recipe)
    if sizes.tokens is not None:
        assert str(sizes.tokens) in name or "stage" not in name
        assert min(sizes.sides) <= BUDGETS[sizes.tokens]
    header = "\n".join(header_lines(next(r.path for r in finetune_recipes() if r.name == name)))
    assert f"reward-tuning finetune {name}" in header
    assert "tiny" in name or "not run with published weights yet" in header
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_any_recipe(tmp_path / "recipe.yaml", check_files=False) == recipe


def write(folder: Path, **changes: Any) -> Path:
    data = json.loads(json.dumps(RECIPE))
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            data[section][key] = value
        else:
            data[section] = value
    (folder / "recipe.yaml").write_text(write_yaml(data))
    return folder / "recipe.yaml"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data__strid": 2}, "data.strid: unknown key (got 2); did you mean data.stride?"),
        ({"data__frames": 6}, "nearest: 5 or 9"),
        ({"data__sides": []}, "data.sides: got []; must not be empty"),
        ({"flow__scheme": "logit-normal"}, "did you mean logit_normal?"),
        ({"masks": {"video": [0.2] * 10}}, "masks.video: got"),
        ({"generator__channels": 33}, "generator.channels: got 33; a LoRA does not"),
        ({"generator__fresh": True}, "generator.fresh: got true; a LoRA does not"),
        (
            {"lora": None, "generator__quantise": "nf4"},
            "quantise: got 'nf4'; only frozen",
        ),
        ({"lora": None, "generator__memory": "block-offload"}, "memory: got 'block-offload'; only"),
        ({"lora": None, "generator__dtype": "bfloat16"}, "train.autocast=bfloat16"),
        ({"data__tokens": 3328, "data__sides": [2048]}, "exceeds data.tokens = 3328"),
    ],
)
def test_mistakes(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(TuningError) as caught:
        load_finetune_recipe(write(tmp_path, **changes), check_files=False)
    assert told in str(caught.value)


def test_missing_files_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="2 mistakes") as caught:
        load_finetune_recipe(write(tmp_path))
    assert "there is no list of clips" in str(caught.value)
    assert "generator.checkpoint" in str(caught.value)


def test_the_other_verbs_recipe(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="reward-tuning run tiny-refl-hps"):
        load_finetune_recipe("tiny-refl-hps")
    with pytest.raises(TuningError, match="reward-tuning finetune finetune/tiny-lora"):
        load_recipe("finetune/tiny-lora")

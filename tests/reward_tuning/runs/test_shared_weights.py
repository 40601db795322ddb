"""Weights that are shared by processes, and the process that has nobody to share with."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from base_model.errors import GeneratorError
from reward_tuning.errors import TuningError
from reward_tuning.runs.shared_weights import SharedWeights, refuse_alone
from reward_tuning.schema.loading import load_recipe
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.recipes_for_tests import write_recipe
from tests.reward_tuning.tiny_transformer import tiny_transformer

KEY = "generator.memory=sharded"


def test_one_process_has_nobody_to_share_with(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path / "recipe"), [f"output={tmp_path / 'run'}", KEY])
    with pytest.raises(TuningError, match=r"generator\.memory is sharded, and this is one process"):
        run(recipe)
    assert not (tmp_path / "run").exists()
    refuse_alone(recipe, 2)
    refuse_alone(load_recipe(tmp_path / "recipe" / "recipe.yaml", ["output=x"]), 1)


def test_weights_are_shared_only_where_the_recipe_asks_for_it() -> None:
    transformer = tiny_transformer()
    SharedWeights(transformer, "resident").share()
    with SharedWeights(transformer, "resident").whole():
        assert all(type(p) is nn.Parameter for p in transformer.parameters())
    with pytest.raises(GeneratorError, match="this one is alone"):
        SharedWeights(transformer, "sharded").share()

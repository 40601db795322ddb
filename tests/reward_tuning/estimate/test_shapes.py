"""Shapes from configs alone."""

from __future__ import annotations

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.estimate.shapes import shape_of
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.locate import shipped_recipes

PUBLISHED = [one.name for one in shipped_recipes() if one.name.startswith("easyanimate-")]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes(name: str) -> None:
    recipe = load_recipe(name, check_files=False)
    shape = shape_of(recipe.generator)
    assert shape.text == (256, 3584)
    assert shape.blocks == ((48, 0) if "12b" in name else (18, 18))


def test_an_embedded_one_has_the_shapes_of_its_files() -> None:
    shape = shape_of(load_recipe("tiny-drtune-hps").generator)
    assert shape.blocks == (2, 4)
    assert shape.with_blocks(3, 2).blocks == (3, 2)
    assert shape.text[1] == shape.transformer["text_embed_dim"]


def test_an_unknown_one_is_refused() -> None:
    recipe = load_recipe(PUBLISHED[0], ["generator.checkpoint=someone/else"], check_files=False)
    with pytest.raises(TuningError, match=r"shapes of someone/else are not known, .*hf download"):
        shape_of(recipe.generator)

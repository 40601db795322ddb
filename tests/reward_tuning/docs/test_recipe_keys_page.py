"""docs/recipe-keys.md is what the schema says now, and names every key of the shipped recipes."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from reward_tuning.evidence.any_recipe import load_any_recipe
from reward_tuning.schema.locate import finetune_recipes, shipped_recipes
from scripts.recipe_keys import PAGE, page

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_page_is_current() -> None:
    assert page() == TEXT, "run: python -m scripts.recipe_keys"


def keys(value: Any) -> Iterator[str]:
    """Every key of nested mappings."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


@pytest.mark.parametrize("name", [one.name for one in (*shipped_recipes(), *finetune_recipes())])
def test_every_key_of_a_shipped_recipe_is_described(name: str) -> None:
    recipe = load_any_recipe(name, check_files=False).model_dump(mode="json")
    sections = set(re.findall(r"^### `([\w.]+)`", TEXT, flags=re.MULTILINE))
    described = set(re.findall(r"^\| `(\w+)` \|", TEXT, flags=re.MULTILINE))
    described |= {part for section in sections for part in section.split(".")} | {"kind"}
    assert set(keys(recipe)) <= described


@pytest.mark.parametrize(
    "row",
    [
        "| `frames` | integer | `49` | ≥ 1, 4k + 1 |",
        "| `guidance_rescale` | number | `0.0` | ≥ 0, ≤ 1 |",
        "| `guidance_range` | list of 2 numbers, null | `null` |  |",
        "| `decoded` | text | `all` | `all`, `first`, `random-window`, `stratified` |",
        "| `batch_size` | integer | required | ≥ 1 |",
        "| `decoder_checkpointing` | true, false, text | `true` | `segments` |",
    ],
)
def test_type_default_and_range(row: str) -> None:
    assert f"\n{row}" in TEXT

"""The recipes for one card fit into it, by the estimate."""

from __future__ import annotations

import pytest

from reward_tuning.estimate.cards import card_of
from reward_tuning.estimate.estimate import estimate
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.locate import find_recipe, header_lines, shipped_recipes

CARDS = [one.name for one in shipped_recipes() if one.name.endswith("gb")]


@pytest.mark.slow
@pytest.mark.parametrize("name", CARDS)
def test_it_fits_and_its_header_says_so(name: str) -> None:
    memory = name.rpartition("-")[2].removesuffix("gb")
    found = estimate(load_recipe(name, check_files=False), time=False)
    usable = card_of(f"{memory}GB").usable
    assert found.peak[1] <= usable
    text = " ".join(" ".join(header_lines(find_recipe(name))).split())
    assert f"{found.peak[1] / 1e9:.1f} GB of the {usable / 1e9:.1f} GB" in text

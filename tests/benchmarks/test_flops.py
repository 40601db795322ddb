"""The table of a step's operations and the command's arguments."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import flops
from reward_tuning.estimate.step_cost import Cost


def test_overrides_belong_to_the_recipe_before() -> None:
    assert flops.asked(["a", "b", "x=1", "y=2", "c"]) == [
        ("a", []),
        ("b", ["x=1", "y=2"]),
        ("c", []),
    ]
    with pytest.raises(SystemExit, match="name the recipe first"):
        flops.asked(["x=1", "a"])


def test_the_table_and_its_ratio() -> None:
    one = Cost("one", "12b", 2e12, {"rollout": 4e12, "texts": 0.0}, 2e12, [3])
    text = flops.table([one], replace(one, recipe="long", rows={"rollout": 8e12, "texts": 0.0}))
    lines = [line.split() for line in text.splitlines()]
    assert ["rollout", "2.00", "4.00"] in lines
    assert ["ratio", "0.500", "1.000"] in lines
    assert ["TFLOP", "4.00", "8.00"] in lines
    assert "texts" not in text


def test_the_published_recipes() -> None:
    assert {"easyanimate-v5.1-12b-hps-long", "easyanimate-v5.1-12b-hps"} < set(
        flops.published_recipes()
    )

"""A judge that reads the oracle is refused as a reward, however it imports it."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.judges.no_oracle import check_no_oracle, line_of_oracle
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import recipe_data

JUDGE = "class Mine:\n    def __call__(self, frames, prompts): return frames.mean((1, 2, 3, 4))\n"


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("import base_model.tiny.oracle\n", 1),
        ("import torch\nfrom base_model.tiny import oracle as truth\n", 2),
        ("from base_model.tiny.oracle import judge\n", 1),
        ("def f():\n    from base_model.tiny.measure import accuracy\n", 2),
        ("import importlib\nm = importlib.import_module('base_model.tiny.oracle')\n", 2),
        ("import base_model.tiny\nx = base_model.tiny.oracle.judge\n", 2),
        ("from base_model.tiny import captions\n", None),
        ('"""Not the oracle of base_model.tiny.oracle, which measures."""\n', None),
        ("this is no Python\n", None),
    ],
)
def test_the_oracle_is_found_in_the_text(code: str, line: int | None, tmp_path: Path) -> None:
    file = tmp_path / "judge.py"
    file.write_text(code)
    assert line_of_oracle(file) == line


def test_it_is_refused_as_a_reward_and_allowed_as_a_measure(tmp_path: Path) -> None:
    file = tmp_path / "judge.py"
    file.write_text("from base_model.tiny.oracle import judge\n" + JUDGE)
    by_file = {"kind": "python", "checkpoint": str(file), "gradient": "paired"}
    by_command = {"kind": "command", "command": ["python", str(file)], "gradient": "paired"}
    for section in (by_file, by_command):
        recipe = Recipe.model_validate(recipe_data(rewards=[section]))
        with pytest.raises(TuningError, match=r"line 1 of .*judge.py.*held_out_rewards"):
            check_no_oracle(recipe.rewards)
    file.write_text(JUDGE)
    check_no_oracle(Recipe.model_validate(recipe_data(rewards=[by_file])).rewards)

"""What docs/rewards.md shows works: its recipes are valid, its kinds are those of the package."""

import re
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.cli.judges import judges_of_options
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.schema.judge_kinds import KINDS
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import recipe_data

PAGE = (Path(__file__).parents[3] / "docs" / "rewards.md").read_text(encoding="utf-8")
RECIPES: list[Any] = [
    read_yaml(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
]


@pytest.mark.parametrize("shown", RECIPES)
def test_the_recipes_are_valid(shown: dict[str, Any]) -> None:
    changes = {"rewards": shown["rewards"]}
    if "evaluation" in shown:
        changes["evaluation__held_out_rewards"] = shown["evaluation"]["held_out_rewards"]
    recipe = Recipe.model_validate(recipe_data(**changes))
    assert len(recipe.rewards) == len(shown["rewards"])


def test_every_kind_has_a_row_in_both_tables() -> None:
    tables = PAGE.split("### Cost and accuracy")[0]
    rows = re.findall(r"^\| `(\w+)` \|", tables, flags=re.MULTILINE)
    for kind in KINDS:
        assert rows.count(kind) == (1 if kind == "python" else 2), kind


def test_judges_given_to_score_are_valid() -> None:
    given = re.findall(r"--reward ('[^']*'|\S+)", PAGE)
    assert len(given) == 6
    for text in given:
        assert len(judges_of_options([text.strip("'")])) == 1

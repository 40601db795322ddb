"""docs/from-easyanimate.md names keys that exist, and recipes and judges that are valid."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from reward_tuning.cli.judges import judges_of_options
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.schema.recipe import Recipe

PAGE = (Path(__file__).parents[3] / "docs" / "from-easyanimate.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Cells of the tables under a heading, without heads and rules."""
    part = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ") and "---" not in line]
    cells = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in lines]
    return [row for row in cells if row[0] != "theirs"]


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a key may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models(inner)


def known(keys: list[str], model: type[BaseModel]) -> bool:
    """Whether a dotted key exists; a number stands for a place in a list."""
    first, rest = keys[0], [key for key in keys[1:] if key != "N"]
    if first not in model.model_fields:
        return False
    inner = list(models(model.model_fields[first].annotation))
    return not rest or any(known(rest, one) for one in inner)


def test_the_recipe_is_valid() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    recipe = Recipe.model_validate(read_yaml(block))
    assert recipe.method.kind == "easyanimate"
    assert recipe.rewards[0].loader_options()["preprocess"] == "squash"


@pytest.mark.parametrize("row", rows("Their flags, our keys"), ids=lambda row: row[0][:40])
def test_every_key_exists(row: list[str]) -> None:
    assert re.fullmatch(r"(`--[\w]+( \w+)?`(, )?)+", row[0]), row
    for key in re.findall(r"`([a-z_]+\.[\w.]+)(?::[^`]*)?`", row[1]):
        assert known(key.split("."), Recipe), key


def test_every_judge_is_valid() -> None:
    found = re.findall(r"`(\{kind: [^`]*\})`", PAGE)
    assert len(found) == 12
    for text in found:
        recipe = {key: value for key, value in read_yaml(text).items() if key not in TRAINED}
        (judge,) = judges_of_options([str(recipe).replace("'", '"').replace("True", "true")])
        assert judge.kind == recipe["kind"]


TRAINED = ("target", "std")
"""Keys of a reward that a judge outside a recipe does not have."""

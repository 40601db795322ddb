"""Ranges and sizes of recipe keys."""

from typing import Any

import pytest
from pydantic import ValidationError

from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import recipe_data


def first_error(**changes: Any) -> tuple[tuple[int | str, ...], str]:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(recipe_data(**changes))
    found = caught.value.errors()
    assert len(found) == 1, found
    return found[0]["loc"], found[0]["msg"]


@pytest.mark.parametrize("frames", [1, 5, 9, 49])
def test_frames_4k_plus_1(frames: int) -> None:
    assert Recipe.model_validate(recipe_data(sampling__frames=frames)).sampling.frames == frames


@pytest.mark.parametrize(("frames", "nearest"), [(2, "1 or 5"), (8, "5 or 9"), (48, "45 or 49")])
def test_frames_not_4k_plus_1(frames: int, nearest: str) -> None:
    where, told = first_error(sampling__frames=frames)
    assert where == ("sampling", "frames")
    assert told.endswith(f"nearest: {nearest}")


@pytest.mark.parametrize(("side", "nearest"), [(17, "16 or 32"), (250, "240 or 256")])
def test_side_not_a_multiple_of_16(side: int, nearest: str) -> None:
    where, told = first_error(sampling__height=side)
    assert where == ("sampling", "height")
    assert told.endswith(f"nearest: {nearest}")


@pytest.mark.parametrize(
    ("name", "code"), [("a\x1b[2J", "U+001B"), ("a\nb", "U+000A"), ("\x9b1m", "U+009B")]
)
def test_a_name_that_orders_the_terminal(name: str, code: str) -> None:
    judge = {"kind": "hps", "checkpoint": "hps-v2.1", "name": name}
    where, told = first_error(rewards=[judge])
    assert where[:2] == ("rewards", 0)
    assert where[-1] == "name"
    assert f"contains {code}, which is no letter" in told
    assert "\x1b" not in told


@pytest.mark.parametrize("name", ["美感 α", "a/b <b>", "👩\u200d🚀"])
def test_a_name_of_any_letters(name: str) -> None:
    judge = {"kind": "hps", "checkpoint": "hps-v2.1", "name": name}
    assert Recipe.model_validate(recipe_data(rewards=[judge])).rewards[0].label == name

"""Parts of judges' sections: judged frames, and keys of older recipes."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from reward_tuning.schema.judge_kinds import HpsSection
from reward_tuning.schema.judge_parts import FORMER_KEYS
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import recipe_data


def first_error(**changes: Any) -> tuple[tuple[int | str, ...], str]:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(recipe_data(**changes))
    found = caught.value.errors()
    assert len(found) == 1, found
    return found[0]["loc"], found[0]["msg"]


@pytest.mark.parametrize("frames", [0, -1, True, "some", 2.0, None])
def test_judged_frames_refused(frames: Any) -> None:
    judge = {"kind": "hps", "checkpoint": "hps-v2.1", "frames": frames}
    where, told = first_error(rewards=[judge])
    assert where == ("rewards", 0, "hps", "frames")
    assert "all, or a number of frames" in told


@pytest.mark.parametrize(
    ("frames", "asked"), [(9, 1), (9, 2), (9, 3), (9, 4), (9, 9), (49, 5), (49, 7), (13, 12)]
)
def test_judged_frames_are_spread_evenly(frames: int, asked: int) -> None:
    judge = HpsSection(kind="hps", checkpoint="hps-v2.1", frames=asked)
    found = judge.judged_frames(frames)
    exact = np.linspace(0, frames - 1, asked)
    assert len(set(found)) == asked
    assert found[0] == 0
    assert asked == 1 or found[-1] == frames - 1
    assert np.abs(np.array(found) - exact).max() <= 0.5


def test_all_frames_are_judged_by_default() -> None:
    assert HpsSection(kind="hps", checkpoint="x").judged_frames(5) == [0, 1, 2, 3, 4]


HPS = {"kind": "hps", "checkpoint": "hps-v2.1"}

LATENT = {"kind": "latent", "checkpoint": "tiny/latent-clip.safetensors"}


def test_fully_written_recipes_of_older_run_folders_load() -> None:
    older = {key: value for key, value in FORMER_KEYS.items() if key != "frames"}
    written = recipe_data(
        method={"kind": "prfl"},
        rewards=[LATENT | FORMER_KEYS],
        evaluation__held_out_rewards=[HPS | older],
    )
    assert Recipe.model_validate(written) == Recipe.model_validate(
        recipe_data(method={"kind": "prfl"}, rewards=[LATENT], evaluation__held_out_rewards=[HPS])
    )

"""Operations of a reward tuning: a step's, and those of an evaluation that devices share."""

from __future__ import annotations

from functools import cache

import pytest

from benchmarks.small_shape import SMALL, SMALL_CLIP
from reward_tuning.estimate.phase_memory import Followed
from reward_tuning.estimate.tuning_work import TuningWork
from reward_tuning.schema.loading import load_recipe

EVALUATION = (
    "evaluation.prompts=10",
    "evaluation.strengths=[0.5,1.5]",
    "evaluation.strength_prompts=4",
    "evaluation.batch_size=2",
    "evaluation.steps=7",
    "evaluation.seeds=3",
)


@cache
def work() -> TuningWork:
    recipe = load_recipe(
        "easyanimate-v5.1-7b-hps",
        [*SMALL_CLIP, "train.gradient_accumulation=3", "train.batch_size=2", *EVALUATION],
        check_files=False,
    )
    return TuningWork(recipe, SMALL)


@pytest.mark.slow
def test_a_step_is_its_clips() -> None:
    found = work().step()
    assert found.total == pytest.approx(6 * sum(found.rows.values()))
    assert found.rows["rollout"] > 0


def test_the_devices_share_an_evaluation() -> None:
    """100 operations of two sampler steps and 20 of the judges, for two clips at once."""
    seen = Followed({}, {("evaluation", "both"): 100.0, ("evaluation", "judges"): 20.0})
    clip = (100 / 2 * 7 + 20) / 2
    assert work().evaluation(seen, 1) == (2 * 10 + 2 * 4) * 3 * clip
    assert work().evaluation(seen, 4) == (2 * 3 + 2 * 1) * 3 * clip

"""Which guards watch which training, and in which order they warn."""

import math
from pathlib import Path

from reward_tuning.runs.guards.choice import finetune_guards, reward_guards
from reward_tuning.runs.guards.clipping import CLIPPING_STEPS
from reward_tuning.runs.guards.guard import Guard
from reward_tuning.runs.guards.idle import IDLE_STEPS
from reward_tuning.runs.guards.vanishing import VANISHING_STEPS
from reward_tuning.schema.loading import load_recipe
from tests.reward_tuning.recipes_for_tests import write_recipe
from tests.reward_tuning.runs.guards.steps import Counts, facts


def warnings(guards: list[Guard], *norms: float) -> list[str]:
    found = (guard.warn(facts(norm)) for norm in norms for guard in guards)
    return [text.partition(":")[0] for text in found if text]


def test_a_reward_tuning_watches_the_size_of_its_gradient(tmp_path: Path) -> None:
    settings = ["train.max_grad_norm=0.5", "train.max_bad_steps=2"]
    train = load_recipe(write_recipe(tmp_path), settings).train
    norms = [math.inf, *[0.0] * IDLE_STEPS, *[1e-4] * VANISHING_STEPS, *[1.0] * CLIPPING_STEPS]
    skipped, idle, vanishing, clipped = (
        "step 7 skipped",
        f"{IDLE_STEPS} steps in a row trained nothing",
        "the gradient vanishes",
        "more than 95% of the last 20 steps were clipped to train.max_grad_norm = 0.5, so the step "
        "length no longer follows the gradient. Raise max_grad_norm, or lower method.nested or "
        "rewards.*.weight",
    )
    assert warnings(reward_guards(train), *norms) == [skipped, idle, vanishing, clipped]
    assert warnings(finetune_guards(train), *norms) == [skipped, idle]
    for guards in (reward_guards(train), finetune_guards(train)):
        assert any(guard.stop(Counts(2, bad_in_a_row=2)) for guard in guards)
        assert not any(guard.stop(Counts(1, bad_in_a_row=1)) for guard in guards)
        assert any(guard.reject(Counts(2, idle_steps=2)) for guard in guards)

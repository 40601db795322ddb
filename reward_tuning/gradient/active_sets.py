"""Several plans for one rollout and one reward gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reward_tuning.errors import TuningError
from reward_tuning.gradient.plan import Plan


def shares_of(plans: Sequence[Plan]) -> dict[Plan, float]:
    """Each distinct plan with its share of the gradient, together 1.

    A plan that was drawn m times of n is swept once, with m / n: the same gradient.

    Args:
        plans: At least one.

    Raises:
        TuningError: Several plans whose reward gradient is not one and the same: they stop at
            different steps, read different things there, weigh clips by their own leaps, or look
            at the end afresh.
    """
    first = plans[0]
    for plan in plans[1:]:
        places = [(of.steps, of.stop, of.reward_input) for of in (first, plan)]
        if places[0] != places[1]:
            was, other = (f"{what} of step {stop}" for _, stop, what in places)
            raise TuningError(
                f"train.active_sets: one plan reads the {was}, another the {other}, so they share "
                "no reward gradient; set method.early_stop=false or train.active_sets=1"
            )
        if any(of.leap_floor is not None or of.renoised for of in (first, plan)):
            raise TuningError(
                "train.active_sets: plans that weigh clips by their leaps or look at the end "
                "afresh share no reward gradient; set train.active_sets=1"
            )
    return {plan: count / len(plans) for plan, count in Counter(plans).items()}

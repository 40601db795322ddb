"""Several gradients from one rollout: more sets of active steps, and restarts from its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.plan import Plan


def place_read(plan: Plan) -> tuple[int, int, str]:
    """Return where a plan reads its reward: the number of steps, the stop, and what is read."""
    return plan.steps, plan.stop, plan.reward_input


def shares_of(plans: Sequence[Plan]) -> dict[Plan, float]:
    """Return each distinct plan with its share of the gradient; the shares add up to 1.

    A plan that was drawn m times of n is swept once, with m / n: the same gradient.

    Args:
        plans: At least one.

    Raises:
        TuningError: Plans without a common reward gradient: they stop at different steps, read
            different inputs there, weight clips by their own leaps, or look at the end afresh.
    """
    first = plans[0]
    for plan in plans[1:]:
        places = [place_read(of) for of in (first, plan)]
        if places[0] != places[1]:
            was, other = (f"{what} of step {stop}" for _, stop, what in places)
            raise TuningError(
                f"train.active_sets: one plan reads the {was}, another the {other}, so they share "
                "no reward gradient; set method.early_stop=false or train.active_sets=1"
            )
        if any(of.leap_floor is not None or of.renoised for of in (first, plan)):
            raise TuningError(
                "train.active_sets: plans that weight clips by their leaps or look at the end "
                "afresh share no reward gradient; set train.active_sets=1"
            )
    return {plan: count / len(plans) for plan, count in Counter(plans).items()}


def further_shares(plan: Plan, plans: Sequence[Plan]) -> dict[Plan, float]:
    """Return the plans of a further update, as `shares_of`, which read what `plan` read.

    The reward gradient was computed for `plan` and is used again, so a plan that weights clips or
    looks at the end afresh can only be followed by itself.
    """
    if all(one == plan for one in plans):
        return {plan: 1.0}
    shares_of([plan, *plans])  # all of them share one reward gradient
    return shares_of(plans)


@dataclass(frozen=True)
class Restart:
    """A further, shorter chain: x' = (1 - s) x_N + s e with s = sigmas[first], then on to the end.

    Attributes:
        first: Index of the table where it begins, 1 ... N - 1.
        plans: Plans of the sweep over its N - first steps, on the rest of the table.
        later: Plans of each further update on the same chain.

    Raises:
        TuningError: A plan that does not read the end.
    """

    first: int
    plans: tuple[Plan, ...]
    later: tuple[tuple[Plan, ...], ...] = ()

    def __post_init__(self) -> None:
        for plan in self.plans:
            if not plan.reads_end:
                raise TuningError(
                    "train.restarts: a restart needs a plan that reads the end of the chain, not a "
                    f"{plan.reward_input.replace('_', ' ')} or a fresh look at the end; choose "
                    "another method, or set method.early_stop=false or train.restarts=0"
                )


def restart_index(sigmas: Tensor, sigma: float) -> int:
    """Return the step in 1 ... N - 1 whose sigma is nearest to the given one.

    Args:
        sigmas: `(N + 1,)`, falling.
        sigma: In (0, 1).

    Raises:
        TuningError: The table has one step only, so no step lies between noise and end.
    """
    inside = sigmas[1:-1]
    if not len(inside):
        raise TuningError("train.restarts: a sampler of one step has no place to restart from")
    return 1 + int((inside - sigma).abs().argmin())

"""Rolling out again from the end of a rollout, noised part of the way."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.plan import Plan


@dataclass(frozen=True)
class Restart:
    """A further, shorter chain: x' = (1 - s) x_N + s e with s = sigmas[first], then on to the end.

    Attributes:
        first: Index of the table where it begins, 1 ... N - 1.
        plans: Of the sweep over its N - first steps, on the table from there.

    Raises:
        TuningError: A plan that does not fit.
    """

    first: int
    plans: tuple[Plan, ...]

    def __post_init__(self) -> None:
        for plan in self.plans:
            if plan.reward_input != "end" or plan.renoised:
                raise TuningError(
                    "train.restarts: a restart needs a plan that reads the end of the chain, and "
                    f"not a {plan.reward_input.replace('_', ' ')} or a fresh look at the end; take "
                    "another method, method.early_stop=false or train.restarts=0"
                )


def restart_index(sigmas: Tensor, sigma: float) -> int:
    """The step i in 1 ... N - 1 whose sigma is nearest to the one wanted.

    Args:
        sigmas: `(N + 1,)`, falling.
        sigma: In (0, 1).

    Raises:
        TuningError: A table of one step, which has no place between noise and end.
    """
    inside = sigmas[1:-1]
    if not len(inside):
        raise TuningError("train.restarts: a sampler of one step has no place to restart from")
    return 1 + int((inside - sigma).abs().argmin())

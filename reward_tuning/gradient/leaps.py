"""Leaps over several steps of the rollout: their quadrature, and their distance from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reward_tuning.errors import TuningError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Leap:
    """A state reached from an earlier one by few velocities: x_end ~ x_start + sum_i w_i v_i.

    Attributes:
        start: Index of the state it begins at.
        end: Index of the state it ends at.
        steps: Steps whose velocities it uses, within `start` ... `end` - 1.
        weights: w_i, one for each step; their sum is s_end - s_start.

    Raises:
        TuningError: Steps outside the leap, or another number of weights.
    """

    start: int
    end: int
    steps: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        inside = bool(self.steps) and self.start <= min(self.steps) <= max(self.steps) < self.end
        if not inside or len(self.weights) != len(self.steps):
            raise TuningError(
                f"a leap from step {self.start} to {self.end} takes the velocities of steps "
                f"{list(self.steps)} with {len(self.weights)} weights; needed are steps within it "
                "and one weight for each"
            )


def leap_likeness(
    states: list[Tensor], sigmas: Tensor, leaps: Sequence[Leap], floor: float
) -> Tensor:
    """Measure how near leaps come to the rollout: LeapAlign's weight of each clip's loss.

    d of a leap is the mean absolute distance between its end and the rollout's state there. The
    velocities are those of the rollout, so no model is called.

    Args:
        states: States of the rollout, as far as the last leap goes.
        sigmas: The rollout's table, `(N + 1,)`.
        leaps: At least one.
        floor: Smallest d that counts.

    Returns:
        `(b,)`: 1 / (sum over leaps of max(d, floor)); no gradient.
    """
    import torch

    with torch.no_grad():
        total = torch.zeros(len(states[0]), dtype=states[0].dtype, device=states[0].device)
        for leap in leaps:
            leapt = states[leap.start]
            for i, weight in zip(leap.steps, leap.weights, strict=True):
                v = (states[i + 1] - states[i]) / float(sigmas[i + 1] - sigmas[i])
                leapt = leapt + weight * v
            distance = (leapt - states[leap.end]).abs().flatten(1).mean(dim=1)
            total = total + distance.clamp(min=floor)
        return 1.0 / total


def spread_steps(start: int, end: int, count: int) -> tuple[int, ...]:
    """Return nearly evenly spread steps of `start` ... `end` - 1, including first and last.

    Args:
        start: The first step.
        end: One past the last; above `start`.
        count: 1 or more; all steps if there are no more.

    Returns:
        Ascending and distinct; places are rounded half to even, as FlowBP's code does.
    """
    last = end - 1 - start
    if count == 1 or last == 0:
        return (start,)
    if last < count:
        return tuple(range(start, end))
    return tuple(sorted({start + round(m * last / (count - 1)) for m in range(count)}))


def quadrature_weights(sigmas: Sequence[float], start: float, end: float) -> tuple[float, ...]:
    """Return weights that integrate the polynomial through values at some sigmas.

    sum_i w_i f(s_i) is the integral of the Lagrange interpolant of f, so exact for polynomials of a
    degree below the number of points. One point gives the Euler leap.

    Args:
        sigmas: Distinct points, inside or outside the interval.
        start: Lower bound of the integral.
        end: Upper bound.

    Returns:
        One weight for each point, with the sum `end - start`; a weight may be 0 or of the other
        sign.
    """
    import torch

    # Moments in u = (s - start) / (end - start): sum_i w_i u_i^p = 1 / (p + 1).
    way = end - start
    u = (torch.tensor(list(sigmas), dtype=torch.float64) - start) / way
    powers = torch.arange(len(u), dtype=torch.float64)
    moments = way / (powers + 1.0)
    weights = torch.linalg.solve(u[None, :] ** powers[:, None], moments)
    return tuple(float(w) for w in weights)

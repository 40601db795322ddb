"""Leaps over several steps of the rollout: how they are integrated, and how near they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reward_tuning.errors import TuningError


@dataclass(frozen=True)
class Leap:
    """A state reached from an earlier one by few velocities: x_end ~ x_start + sum_i w_i v_i.

    Attributes:
        start: index of the state it begins at.
        end: index of the state it ends at.
        steps: the steps whose velocities it takes, within `start` ... `end` - 1.
        weights: w_i, one for each of them, together s_end - s_start.

    Raises:
        TuningError: steps outside the leap, or another number of weights.
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


@torch.no_grad()
def leap_likeness(
    states: list[Tensor], sigmas: Tensor, leaps: Sequence[Leap], floor: float
) -> Tensor:
    """How near leaps come to the rollout: LeapAlign's weight of each clip's loss.

    d of a leap is the mean absolute distance of where it lands to the rollout's state there. The
    velocities are those of the rollout, so no model is called.

    Args:
        states: what `engine.rollout` returned, as far as the last leap goes.
        sigmas: the rollout's table, `(N + 1,)`.
        leaps: at least one.
        floor: smallest d that counts.

    Returns:
        `(b,)`: 1 / (sum over leaps of max(d, floor)).
    """
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
    """About evenly spread steps of `start` ... `end` - 1, the first and the last among them.

    Args:
        start: The first step.
        end: One past the last; above `start`.
        count: How many, 1 or more; all of them where there are no more.

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
    """Weights that integrate the polynomial through values at some sigmas from `start` to `end`.

    sum_i w_i f(s_i) is the integral of the Lagrange interpolant of f, so exact for polynomials of a
    degree below the number of points. One point gives the Euler leap.

    Args:
        sigmas: Distinct points, inside or outside the interval.
        start: Where the integral begins.
        end: Where it ends.

    Returns:
        One weight a point, together `end - start`; a weight may be 0 or of the other sign.
    """
    # Moments in u = (s - start) / (end - start): sum_i w_i u_i^p = 1 / (p + 1).
    way = end - start
    u = (torch.tensor(list(sigmas), dtype=torch.float64) - start) / way
    powers = torch.arange(len(u), dtype=torch.float64)
    moments = way / (powers + 1.0)
    weights = torch.linalg.solve(u[None, :] ** powers[:, None], moments)
    return tuple(float(w) for w in weights)

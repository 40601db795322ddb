"""The phases of a few-step sampler, and the loss that teaches it to cross one in a single step.

PeRFlow (Yan et al. 2024, arXiv:2405.07510) divides the flow at levels s_0 = 1 > ... > s_N = 0 and
fits, within each phase, the straight line from its start to the point where the teacher's guided
ODE leaves it. With x at s_k, the teacher's solution `Phi_k(x)` at s_{k+1} and the student's
velocity v, the loss of a phase is

    | v(x, s_k) - (Phi_k(x) - x) / (s_{k+1} - s_k) |^2,

so that the Euler step `x + (s_{k+1} - s_k) v(x, s_k)` lands on `Phi_k(x)`. The levels are those
that the published schedule visits in N steps: the plain sampler with N steps and no guidance is the
student, and an ordinary LoRA holds it.

Unlike PeRFlow, which noises clips to s_k and trains at every level of a phase, x is the state that
the student itself reaches: those states are what it meets when it samples, and it needs no clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from base_model.sampling.sigmas import SMALLEST_TIME, shift_time, sigma_table

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x, sigma) -> velocity, of the shape of x."""
Solve = Callable[[Tensor, Tensor], Tensor]
"""(x, levels) -> the teacher's solution at the last of the levels from x at the first."""


@dataclass(frozen=True)
class Phases:
    """The levels of a student's steps, and the finer ones between them.

    Attributes:
        sigmas: `(N + 1,)`, the table of the student's sampler.
        inner: `(N - 1, m + 1)`, the teacher's levels in each phase but the last: first and last of
            row k are `sigmas[k]` and `sigmas[k + 1]`.
    """

    sigmas: Tensor
    inner: Tensor

    def __len__(self) -> int:
        """Return the number of phases that are trained.

        The last step, from the smallest time of the schedule to 0, is 0.0027 wide whatever N is. It
        moves nothing that anyone sees, and the student keeps the base's velocity there.
        """
        return len(self.inner)


def phases(steps: int, inner_steps: int) -> Phases:
    """Return the phases of a student of N steps.

    Args:
        steps: N, at least 2.
        inner_steps: m, the teacher's steps in a phase, even in time before its shift, as the
            published schedule's are.
    """
    assert steps >= 2, steps
    times = torch.linspace(1.0, SMALLEST_TIME, steps, dtype=torch.float64)
    rows = [
        shift_time(torch.linspace(float(a), float(b), inner_steps + 1, dtype=torch.float64))
        for a, b in pairwise(times)
    ]
    sigmas, inner = sigma_table(steps), torch.stack(rows).to(torch.float32)
    inner[:, 0], inner[:, -1] = sigmas[:-2], sigmas[1:-1]  # the same numbers, to the bit
    return Phases(sigmas, inner)


def phase_target(solve: Solve, x: Tensor, levels: Tensor) -> Tensor:
    """Return the constant velocity that carries x to the teacher's solution.

    Args:
        solve: The teacher.
        x: `(b, ...)`, the state at `levels[0]`.
        levels: `(m + 1,)`, decreasing.
    """
    with torch.no_grad():
        return (solve(x, levels) - x) / (levels[-1] - levels[0]).to(x)


def phase_losses(student: Velocity, solve: Solve, noise: Tensor, table: Phases) -> Iterator[Tensor]:
    """Yield the loss of each phase, at the states that the student reaches from the noise.

    A loss is yielded before the next phase is computed, so its graph can be freed by then. The
    states carry no gradient.

    Args:
        student: Its velocity, differentiable in what is trained.
        solve: The teacher.
        noise: `(b, ...)`, the state at level 1.
        table: The phases.

    Yields:
        Mean squared error of the velocity, a scalar.
    """
    x = noise
    for k, levels in enumerate(table.inner):
        target = phase_target(solve, x, levels)
        v = student(x, table.sigmas[k])
        yield (v - target).square().mean()
        x = x + (table.sigmas[k + 1] - table.sigmas[k]).to(x) * v.detach()

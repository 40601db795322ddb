"""Phases and their loss, against the published schedule and a linear flow solved by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from base_model.sampling.sigmas import sigma_table
from reward_tuning.distil.phases import phase_losses, phase_target, phases

RATE = 0.7
X = torch.tensor([[1.5, -2.0, 0.25], [0.5, 3.0, -1.0]], dtype=torch.float64)


def exact(x: Tensor, levels: Tensor) -> Tensor:
    """dx/ds = RATE x + s, solved: x = C e^(RATE s) - s / RATE - 1 / RATE^2."""
    a, b = float(levels[0]), float(levels[-1])
    constant = (x + a / RATE + 1 / RATE**2) * math.exp(-RATE * a)
    return constant * math.exp(RATE * b) - b / RATE - 1 / RATE**2


def euler(x: Tensor, levels: Tensor) -> Tensor:
    for a, b in zip(levels[:-1].double(), levels[1:].double(), strict=True):
        x = x + (b - a) * (RATE * x + a)
    return x


@pytest.mark.parametrize("steps", [2, 4, 8])
def test_the_student_steps_where_the_published_sampler_does(steps: int) -> None:
    table = phases(steps, 5)
    assert torch.equal(table.sigmas, sigma_table(steps))
    assert len(table) == steps - 1  # not the last step, which is 0.0027 wide
    assert table.inner.shape == (steps - 1, 6)
    assert torch.equal(table.inner[:, 0], table.sigmas[:-2])
    assert torch.equal(table.inner[:, -1], table.sigmas[1:-1])
    assert float(table.sigmas[-2]) < 0.003


def test_the_teacher_steps_evenly_in_time_before_the_shift() -> None:
    """The finer levels of 4 steps, 3 a phase, are those of the published sampler of 10."""
    inner = phases(4, 3).inner
    fine = torch.cat([inner[0], inner[1, 1:], inner[2, 1:]])
    torch.testing.assert_close(fine, sigma_table(10)[:-1], rtol=0, atol=1e-6)


def test_one_step_with_the_target_is_the_teachers_whole_phase() -> None:
    levels = phases(4, 3).inner[1]
    target = phase_target(exact, X, levels)
    landed = X + (levels[-1] - levels[0]).double() * target
    torch.testing.assert_close(landed, exact(X, levels), rtol=1e-6, atol=1e-7)
    finer = [(euler(X, phases(4, m).inner[1]) - exact(X, levels)).abs().max() for m in (4, 8)]
    assert 1.8 < float(finer[0] / finer[1]) < 2.2  # Euler's method is of first order


def test_the_losses_are_the_formula_at_the_students_own_states() -> None:
    table = phases(4, 3)
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    losses = list(phase_losses(lambda x, s: weight * x + s, exact, X, table))
    assert len(losses) == 3
    x = X
    for k, loss in enumerate(losses):
        a, b = float(table.sigmas[k]), float(table.sigmas[k + 1])
        slope = (exact(x, table.inner[k]) - x) / (b - a)
        off = 0.3 * x + a - slope
        assert float(loss.detach()) == pytest.approx(float((off**2).mean()), rel=1e-6)
        (gradient,) = torch.autograd.grad(loss, weight)
        # of this phase alone: the states carry no gradient
        assert float(gradient) == pytest.approx(float((2 * off * x).mean()), rel=1e-6)
        x = x + (b - a) * (0.3 * x + a)


def test_a_student_that_crosses_each_phase_as_the_teacher_has_no_loss() -> None:
    table = phases(4, 3)

    def perfect(x: Tensor, sigma: Tensor) -> Tensor:
        k = table.sigmas.tolist().index(float(sigma))
        return phase_target(exact, x, table.inner[k])

    assert max(map(float, phase_losses(perfect, exact, X, table))) < 1e-20


def test_a_phase_is_computed_only_when_it_is_asked_for() -> None:
    solved: list[int] = []

    def counting(x: Tensor, levels: Tensor) -> Tensor:
        solved.append(len(levels))
        return x

    losses = phase_losses(lambda x, s: x, counting, X, phases(4, 3))
    next(losses)
    assert solved == [4]

"""AWM's objective against the policy-gradient surrogate, written out and differentiated."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reward_tuning.gradient.methods.awm import AWM
from reward_tuning.tuning.sampled_clips import centred, normalised
from tests.reward_tuning.gradient.methods.matched_toy import (
    ADVANTAGES,
    Toy,
    gradient,
    points,
    relative,
)

X, U, S = points()
LIMITED = {None: 0, 0.05: 1, 1e-3: 2}
"""Clips beyond each limit in the test."""


def log_likelihood(v: Tensor) -> Tensor:
    return -torch.stack([((a - b) ** 2).sum() / a.numel() for a, b in zip(v, U, strict=True)])


def test_on_policy_it_is_the_policy_gradient() -> None:
    toy = Toy(0)
    log_p = log_likelihood(toy(X, S))
    surrogate = -(torch.exp(log_p - log_p.detach()) * ADVANTAGES).mean()
    got = AWM(kind="awm").objective(toy(X, S), U, None, ADVANTAGES)
    assert relative(gradient(toy, got.mean()), gradient(toy, surrogate)) < 1e-12
    assert got.tolist() == pytest.approx((-ADVANTAGES * log_p).tolist(), rel=1e-12)


def test_the_clipped_form_on_policy_is_the_same_gradient() -> None:
    """Where it is used, at a second update, an adapter that has not moved changes nothing."""
    toy, awm = Toy(0), AWM(kind="awm")
    once = awm.objective(toy(X, S), U, None, ADVANTAGES).mean()
    again = awm.objective(toy(X, S), U, toy(X, S).detach(), ADVANTAGES).mean()
    assert relative(gradient(toy, again), gradient(toy, once)) < 1e-12


@pytest.mark.parametrize("clip", [None, 0.05, 1e-3])
def test_off_policy_it_is_the_clipped_surrogate(clip: float | None) -> None:
    toy, old = Toy(0), Toy(0)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in toy.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=draw, dtype=torch.float64))
    before = log_likelihood(old(X, S)).detach()
    total, limited = torch.zeros((), dtype=torch.float64), 0
    for log_p, log_old, a in zip(log_likelihood(toy(X, S)), before, ADVANTAGES, strict=True):
        ratio = torch.exp(log_p - log_old)
        moved = float(ratio.detach()) - 1.0
        if clip is not None and moved * float(a) > 0 and abs(moved) > clip:
            total = total - a * (1.0 + math.copysign(clip, moved))
            limited += 1
        else:
            total = total - a * ratio
    got = AWM(kind="awm", clip=clip).objective(toy(X, S), U, old(X, S).detach(), ADVANTAGES)
    assert float(got.detach().mean()) == pytest.approx(float(total.detach()) / 6, rel=1e-12)
    assert limited == LIMITED[clip]
    assert relative(gradient(toy, got.mean()), gradient(toy, total / 6)) < 1e-12


def test_it_raises_the_reward_of_a_gaussian() -> None:
    """The flow to N(m, 1) has a velocity in closed form; the reward is the sample itself."""
    m = torch.zeros((), dtype=torch.float64, requires_grad=True)
    awm, draw = AWM(kind="awm"), torch.Generator().manual_seed(0)

    def velocity(x: Tensor, s: Tensor) -> Tensor:
        return -m + (2 * s - 1) / ((1 - s) ** 2 + s**2) * (x - (1 - s) * m)

    def sample(count: int) -> Tensor:
        x, levels = (
            torch.randn(count, generator=draw, dtype=torch.float64),
            torch.linspace(1, 0, 33),
        )
        for s, to in zip(levels[:-1].double(), levels[1:].double(), strict=True):
            x = x + (to - s) * velocity(x, s).detach()
        return x

    before = float(sample(4000).mean())
    for _ in range(60):
        x = sample(64)
        advantages = normalised(centred(x, 8), 8, "group", 1.0)
        e, s = torch.randn(64, generator=draw).double(), torch.rand(64, generator=draw).double()
        v = velocity((1 - s) * x + s * e, s)
        loss = awm.objective(v[:, None], (e - x)[:, None], None, advantages).mean()
        (g,) = torch.autograd.grad(loss, m)
        m = (m - 0.05 * g).detach().requires_grad_()
    assert abs(before) < 0.1
    assert float(sample(4000).mean()) > before + 1.0

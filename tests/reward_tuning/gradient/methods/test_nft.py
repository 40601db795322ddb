"""DiffusionNFT's objective: its first gradient, and later ones against the paper's loss."""

from __future__ import annotations

import pytest
import torch

from reward_tuning.gradient.methods.awm import AWM
from reward_tuning.gradient.methods.nft import NFT
from tests.reward_tuning.gradient.methods.matched_toy import (
    ADVANTAGES,
    Toy,
    gradient,
    points,
    relative,
)

X, U, S = points()
CLAMPED = torch.tensor([1.0, -0.4, -1.0, 0.7, 0.0, 0.4], dtype=torch.float64)


@pytest.mark.parametrize("beta", [1.0, 0.1, 2.5])
def test_its_first_gradient_is_weighted_matching(beta: float) -> None:
    """2 beta (2 r - 1) = 2 beta clamp(A) times that of |v - u|^2 / 2: AWM's, times beta."""
    toy = Toy(0)
    got = gradient(toy, NFT(kind="nft", beta=beta).objective(toy(X, S), U, None, ADVANTAGES).mean())
    each = ((toy(X, S) - U) ** 2).mean(dim=(1, 2))
    assert relative(got, gradient(toy, (beta * CLAMPED * each).mean())) < 1e-12
    awm = AWM(kind="awm").objective(toy(X, S), U, None, CLAMPED).mean()
    assert relative(got, beta * gradient(toy, awm)) < 1e-12


@pytest.mark.parametrize("beta", [1.0, 0.1, 2.5])
def test_later_ones_are_those_of_the_papers_loss(beta: float) -> None:
    toy, old = Toy(0), Toy(1)
    with torch.no_grad():
        before = old(X, S)
    v, total = toy(X, S), torch.zeros((), dtype=torch.float64)
    for i, a in enumerate(ADVANTAGES.tolist()):
        r = 0.5 + 0.5 * max(-1.0, min(1.0, a))
        plus = (1 - beta) * before[i] + beta * v[i]
        minus = (1 + beta) * before[i] - beta * v[i]
        total = total + r * ((plus - U[i]) ** 2).mean() + (1 - r) * ((minus - U[i]) ** 2).mean()
    loss = NFT(kind="nft", beta=beta).objective(toy(X, S), U, before, ADVANTAGES).mean()
    assert float(loss.detach()) == pytest.approx(float(total.detach()) / 6, rel=1e-12)
    got = gradient(toy, loss)
    assert relative(got, gradient(toy, total / 6)) < 1e-12
    # and by hand: 2 beta ((2 r - 1) (v_old - u) + beta (v - v_old)), over the count of numbers
    pull = CLAMPED[:, None, None] * (before - U) + beta * (v.detach() - before)
    by_hand = (2 * beta * pull * toy(X, S)).mean(dim=(1, 2)).mean()
    assert relative(got, gradient(toy, by_hand)) < 1e-12

"""Estimates from scores: unbiased on linear and quadratic losses, in float64, over many draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from reward_tuning.gradient.estimates import group_gradient, paired_gradient, with_gradient

DIMENSIONS, DRAWS = 12, 4000
SHAPE = (3, 2, 2)
SLOPE = torch.linspace(-1.0, 2.0, DIMENSIONS, dtype=torch.float64)
CENTRE = torch.linspace(0.5, -0.5, DIMENSIONS, dtype=torch.float64)


def curvature() -> Tensor:
    made = torch.randn(DIMENSIONS, DIMENSIONS, generator=generator(5), dtype=torch.float64)
    return made + made.T


def linear(x: Tensor) -> Tensor:
    return x.flatten(1) @ SLOPE + 3.0


def quadratic(x: Tensor) -> Tensor:
    flat = x.flatten(1)
    return flat @ SLOPE + 0.5 * torch.einsum("bi,ij,bj->b", flat, curvature(), flat)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(count: int, seed: int) -> Tensor:
    made = torch.randn(count, DIMENSIONS, generator=generator(seed), dtype=torch.float64)
    return (CENTRE + 0.7 * made).view(count, *SHAPE)


def assert_unbiased(draws: Tensor, truth: Tensor) -> None:
    """Every component of the mean is within its sampling error, which is small enough to tell."""
    error = draws.std(dim=0) / len(draws) ** 0.5
    assert float(((draws.mean(dim=0) - truth).abs() / error).max()) < 4.0
    assert float(error.norm() / truth.norm()) < 0.15


def gradient_of(loss: str) -> Tensor:
    """The mean gradient over the clips, in closed form."""
    return SLOPE if loss == "linear" else SLOPE + curvature() @ CENTRE


@pytest.mark.parametrize("loss", ["linear", "quadratic"])
@pytest.mark.parametrize("clips", [2, 5, 16])
def test_a_groups_mean_is_the_gradient(loss: str, clips: int) -> None:
    x = normal(DRAWS * clips, clips)
    losses = {"linear": linear, "quadratic": quadratic}[loss](x)
    g = group_gradient(losses, x, clips) * len(x)  # of one clip
    assert g.shape == x.shape
    assert_unbiased(g.view(DRAWS, clips, -1).mean(dim=1), gradient_of(loss))


@pytest.mark.parametrize("loss", ["linear", "quadratic"])
@pytest.mark.parametrize("pairs", [1, 3])
def test_the_mean_of_pairs_is_the_gradient_in_the_middle(loss: str, pairs: int) -> None:
    score = {"linear": linear, "quadratic": quadratic}[loss]
    x = normal(1, 3).expand(DRAWS, *SHAPE)
    change = 0.3 * torch.randn(pairs, *x.shape, generator=generator(4), dtype=torch.float64)
    near = [(score(x + by), x + by) for by in change]
    g = paired_gradient(score(x), x, near) * len(x)
    at = x[0].flatten()  # the mean of the middles: changes have mean 0
    truth = SLOPE if loss == "linear" else SLOPE + curvature() @ at
    assert_unbiased(g.flatten(1), truth)


def test_the_noise_falls_with_the_number_of_clips() -> None:
    """Its mean square is D / (K - 1) of the gradient's, less what lies along it."""
    for clips in (3, 9):
        x = normal(DRAWS * clips, 7)
        g = (group_gradient(linear(x), x, clips) * len(x)).view(DRAWS, clips, -1).mean(dim=1)
        noise = (g - SLOPE).square().sum(dim=1).mean() / SLOPE.square().sum()
        assert float(noise) == pytest.approx(DIMENSIONS / (clips - 1), rel=0.15)


def test_a_group_is_the_covariance_over_the_variance() -> None:
    """By NumPy's covariance, and clip by clip its own term; each prompt for itself."""
    x = normal(8, 1)
    losses = quadratic(x)
    g = group_gradient(losses, x, 4)
    for of in (slice(0, 4), slice(4, 8)):
        flat = x[of].flatten(1).numpy()
        both = np.cov(np.column_stack([losses[of].numpy(), flat]), rowvar=False, ddof=0)
        slope = DIMENSIONS * both[0, 1:] / np.trace(both[1:, 1:])
        assert np.allclose(g[of].flatten(1).numpy().mean(axis=0), slope / 8, rtol=1e-12)
    centred = losses[:4] - losses[:4].mean()
    away = x[:4] - x[:4].mean(dim=0)
    first = g[0] / away[0] / centred[0]
    assert torch.allclose(first, (g[3] / away[3] / centred[3]).mean().expand_as(first))


def test_a_pair_is_the_slope_between_two_clips() -> None:
    x, other = normal(2, 1), normal(2, 2)
    g = paired_gradient(linear(x), x, [(linear(other), other)])
    for clip in range(2):
        change = (other - x)[clip].flatten()
        rise = change @ SLOPE
        assert torch.allclose(
            g[clip].flatten(), DIMENSIONS / 2 * rise * change / change.square().sum()
        )


def test_equal_scores_and_equal_clips_give_no_gradient() -> None:
    x = normal(4, 1)
    assert float(group_gradient(torch.ones(4), x, 2).abs().max()) == 0.0
    same = x[:1].expand(4, *SHAPE)
    assert float(group_gradient(linear(x), same, 2).abs().max()) == 0.0
    assert float(paired_gradient(linear(x), same, [(linear(x) + 1, same)]).abs().max()) == 0.0


def test_a_loss_takes_on_a_gradient() -> None:
    x = normal(2, 1).requires_grad_()
    wanted = normal(2, 2)
    loss = with_gradient(torch.tensor(0.25, dtype=torch.float64), x, wanted)
    assert float(loss.detach()) == 0.25
    (g,) = torch.autograd.grad(2.0 * loss, x)
    assert torch.equal(g, 2.0 * wanted)

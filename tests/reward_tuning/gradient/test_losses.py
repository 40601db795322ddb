"""Losses against the formulas written out; several judges, one gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.losses import (
    LossesFn,
    conflict_free_gradient,
    guidance_gain,
    reward_gradient,
    reward_loss,
    soft_min,
    summed_gradient,
)


def test_without_a_target_the_loss_is_the_negative_mean() -> None:
    scores = torch.tensor([0.25, 0.5, -1.0], requires_grad=True)
    loss = reward_loss(scores, weight=3.0)
    loss.backward()
    assert loss.item() == pytest.approx(-3.0 * (0.25 + 0.5 - 1.0) / 3)
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx([-1.0, -1.0, -1.0])


def test_hinge() -> None:
    """Clips at the target or above give no gradient, and do not pay for the others."""
    scores = torch.tensor([0.25, 0.5, 0.75], requires_grad=True)
    loss = reward_loss(scores, weight=2.0, target=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(2.0 * (0.5 - 0.25) / 3)
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx([-2.0 / 3, 0.0, 0.0])


def test_a_target_out_of_reach_has_the_gradient_of_no_target() -> None:
    scores = torch.tensor([0.25, 0.5], requires_grad=True)
    (far,) = torch.autograd.grad(reward_loss(scores, target=9.0), scores)
    (none,) = torch.autograd.grad(reward_loss(scores), scores)
    assert torch.equal(far, none)


def test_a_hinge_is_the_cap_of_a_normalised_score() -> None:
    """R = min((r - mean) / std, cap) with cap = (target - mean) / std: one mechanism."""
    mean, std, target, weight = 0.27, 0.03, 0.3, 1.5
    raw = [0.21, 0.29, 0.33]
    scores = torch.tensor(raw, dtype=torch.float64, requires_grad=True)
    loss = reward_loss(scores, weight=weight, target=target, mean=mean, std=std)
    (found,) = torch.autograd.grad(loss, scores)
    cap = (target - mean) / std
    capped = [min((r - mean) / std, cap) for r in raw]
    assert loss.item() == pytest.approx(-weight * (sum(capped) / 3 - cap))
    assert found.tolist() == pytest.approx([-weight / std / 3, -weight / std / 3, 0.0])


def test_the_mean_moves_the_loss_and_no_gradient() -> None:
    scores = torch.tensor([0.25, 0.5], requires_grad=True)
    loss = reward_loss(scores, weight=2.0, mean=0.3, std=0.1)
    assert loss.item() == pytest.approx(-2.0 * (-0.5 + 2.0) / 2)
    (moved,) = torch.autograd.grad(loss, scores)
    (plain,) = torch.autograd.grad(reward_loss(scores, weight=20.0), scores)
    torch.testing.assert_close(moved, plain)


def test_soft_min_against_the_formula_in_plain_numbers() -> None:
    rows = [[0.2, 0.5, 0.9], [0.4, 0.4, 0.4]]
    scores = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    found = soft_min(scores, 5.0)
    for row, value in zip(rows, found.tolist(), strict=True):
        mean = sum(math.exp(-5.0 * s) for s in row) / 3
        assert value == pytest.approx(-math.log(mean) / 5.0)
        assert min(row) - 1e-12 <= value <= sum(row) / 3 + 1e-12
    (ours,) = torch.autograd.grad(found.sum(), scores)
    published = -torch.logsumexp(-5.0 * scores, dim=1) / 5.0  # its gradient is a softmax
    (wanted,) = torch.autograd.grad(published.sum(), scores)
    torch.testing.assert_close(ours, wanted)
    assert ours.sum(dim=1).tolist() == pytest.approx([1.0, 1.0])
    assert ours[0, 0] > 2 * ours[0, 1]  # the worst frame has most of the weight
    assert soft_min(scores, 1e-6).tolist() == pytest.approx([sum(r) / 3 for r in rows], abs=1e-5)
    assert soft_min(scores, 1e4).tolist() == pytest.approx([0.2, 0.4], abs=1e-3)


@pytest.mark.parametrize(("negative", "gain"), [("detached", 6.0), ("joint", 1.0), ("none", 1.0)])
def test_only_a_detached_branch_divides(negative: str, gain: float) -> None:
    assert guidance_gain(6.0, negative) == gain


# --- several judges, one gradient


def losses_with(*gradients: Tensor) -> LossesFn:
    return lambda x: [(x * gradient).sum() for gradient in gradients]


def test_conflict_is_taken_out_clip_by_clip() -> None:
    # Clip 0: the two disagree; clip 1: they agree. Worked out by hand.
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([[-1.0, 1.0], [1.0, 1.0]])
    x = torch.ones(2, 2)
    loss, merged = conflict_free_gradient(losses_with(a, b), x)
    # a - (-1/2) b = (0.5, 0.5) and b - (-1) a = (0, 1): neither runs against the other's origin
    assert torch.allclose(merged, torch.tensor([[0.5, 1.5], [2.0, 1.0]]))
    assert float((merged[0] * a[0]).sum()) > 0 < float((merged[0] * b[0]).sum())
    total, plain = summed_gradient(losses_with(a, b), x)
    assert float(loss) == float(total) == float((a + b).sum())
    assert torch.equal(plain, a + b)
    assert float((plain[0] * a[0]).sum()) == 0.0  # the sum would give the first judge nothing


def test_three_judges_and_one_without_gradient() -> None:
    draw = torch.Generator().manual_seed(0)
    own = [torch.randn(3, 4, 2, generator=draw, dtype=torch.float64) for _ in range(2)]
    own.append(torch.zeros_like(own[0]))  # its target is reached
    _, merged = conflict_free_gradient(losses_with(*own), torch.ones_like(own[0]))
    _, pair = conflict_free_gradient(losses_with(*own[:2]), torch.ones_like(own[0]))
    assert torch.allclose(merged, pair)
    assert bool(merged.isfinite().all())


def test_one_judge_is_left_alone() -> None:
    a = torch.tensor([[1.0, -2.0]])
    _, merged = conflict_free_gradient(losses_with(a), torch.zeros(1, 2))
    assert torch.equal(merged, a)


def test_a_judge_without_a_graph_is_refused() -> None:
    with pytest.raises(TuningError, match="carries no gradient"):
        conflict_free_gradient(lambda x: [x.sum(), x.detach().sum()], torch.ones(1, 2))


def test_reward_gradient_refuses_what_has_no_gradient() -> None:
    x = torch.ones(2, 3, 4)
    with pytest.raises(TuningError, match="reduce it to a scalar"):
        reward_gradient(lambda z: z.mean(dim=(1, 2)), x)
    with pytest.raises(TuningError, match="carries no gradient"):
        reward_gradient(lambda z: z.detach().mean(), x)
    other = torch.ones((), requires_grad=True)
    with pytest.raises(TuningError, match="does not depend"):
        reward_gradient(lambda z: other * 2, x)

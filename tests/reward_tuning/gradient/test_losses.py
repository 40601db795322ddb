"""From scores to losses, against the formulas written out."""

import math

import pytest
import torch

from reward_tuning.gradient.losses import guidance_gain, reward_loss, soft_min


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

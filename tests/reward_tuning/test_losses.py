"""From scores to losses, against the formulas written out."""

import pytest
import torch

from reward_tuning.losses import guidance_divisor, reward_loss


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


@pytest.mark.parametrize(
    ("negative", "divisor"), [("detached", 6.0), ("joint", 1.0), ("none", 1.0)]
)
def test_only_a_detached_branch_divides(negative: str, divisor: float) -> None:
    assert guidance_divisor(6.0, negative) == divisor

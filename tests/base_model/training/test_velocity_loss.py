import pytest
import torch
import torch.nn.functional as F

from base_model.training.velocity_loss import norm_limit, velocity_loss

SHAPE = (3, 16, 4, 2, 5)


def draw(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_mean_over_the_batch_is_the_mean_square() -> None:
    v, target = draw(0), draw(1)
    assert velocity_loss(v, target).mean().item() == pytest.approx(F.mse_loss(v, target).item())


def test_weights_count_sample_by_sample() -> None:
    v, target, w = draw(0), draw(1), torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    expected = (w[:, None, None, None, None] * (v - target) ** 2).mean()
    assert velocity_loss(v, target, w).mean().item() == pytest.approx(expected.item())


def test_outliers_give_neither_loss_nor_gradient() -> None:
    target = torch.zeros(SHAPE)
    v = torch.full(SHAPE, 2.0)
    v[0, 0, 0, 0, 0] = 50.0  # the bound itself counts
    v[0, 0, 0, 0, 1] = -50.1
    v.requires_grad_()
    losses = velocity_loss(v, target)
    count = v[0].numel()
    assert losses[0].item() == pytest.approx((4.0 * (count - 2) + 2500.0) / count)
    assert losses[1].item() == pytest.approx(4.0)
    (gradient,) = torch.autograd.grad(losses.sum(), v)
    assert gradient[0, 0, 0, 0, 1] == 0.0
    assert gradient[0, 0, 0, 0, 0].item() == pytest.approx(2 * 50.0 / count)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_motion_compares_neighbouring_latent_frames(share: float) -> None:
    v, target = draw(0), draw(1)
    motion = F.mse_loss(v[:, :, 1:] - v[:, :, :-1], target[:, :, 1:] - target[:, :, :-1])
    expected = (1 - share) * F.mse_loss(v, target) + share * motion
    found = velocity_loss(v, target, motion_share=share).mean()
    assert found.item() == pytest.approx(expected.item())


def test_an_error_that_is_the_same_in_every_frame_is_no_motion() -> None:
    target = draw(1)
    v = target + draw(0)[:, :, :1]
    assert velocity_loss(v, target, motion_share=1.0).abs().max().item() < 1e-28


def test_a_picture_has_no_motion_term() -> None:
    v, target = draw(0)[:, :, :1], draw(1)[:, :, :1]
    assert torch.equal(velocity_loss(v, target, motion_share=0.25), velocity_loss(v, target))


def test_half_precision_is_summed_in_float32() -> None:
    v, target = draw(0).bfloat16(), draw(1).bfloat16()
    expected = F.mse_loss(v.float(), target.float())
    found = velocity_loss(v, target)
    assert found.dtype == torch.float32
    assert found.mean().item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_limit_of_the_gradient_narrows() -> None:
    found = [
        norm_limit(step, 0.05, first_ratio=5, decay_steps=1000) for step in (0, 500, 1000, 9999)
    ]
    assert found == pytest.approx([0.25, 0.15, 0.05, 0.05])
    assert norm_limit(0, 0.3) == 0.3

"""The causal convolution against diffusers' own, in values and gradients, to the bit."""

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_magvit import EasyAnimateCausalConv3d
from torch import Tensor

from base_model.networks.causal_convolution import causal_convolution


@pytest.fixture(params=[(16, 16), (16, 3), (64, 32)], ids=str)
def conv(request: pytest.FixtureRequest) -> EasyAnimateCausalConv3d:
    torch.manual_seed(0)
    return EasyAnimateCausalConv3d(*request.param, kernel_size=3).requires_grad_(False)


def clip(conv: EasyAnimateCausalConv3d, frames: int, *, batch: int = 2) -> Tensor:
    draw = torch.Generator().manual_seed(frames)
    return torch.randn(batch, conv.in_channels, frames, 12, 8, generator=draw)


def by_diffusers(conv: EasyAnimateCausalConv3d, *parts: Tensor) -> list[Tensor]:
    conv.prev_features = None
    return [conv(part) for part in parts]


def by_us(conv: EasyAnimateCausalConv3d, *parts: Tensor) -> list[Tensor]:
    past, found = None, []
    for part in parts:
        y, past = causal_convolution(conv, part, past)
        found.append(y)
    return found


@pytest.mark.parametrize("frames", [(1,), (1, 4), (1, 1, 1), (1, 2, 2), (5,)], ids=str)
def test_values_and_gradients_are_those_of_diffusers(
    conv: EasyAnimateCausalConv3d, frames: tuple[int, ...]
) -> None:
    parts = [clip(conv, count).requires_grad_() for count in frames]
    ours, theirs = by_us(conv, *parts), by_diffusers(conv, *parts)
    weights = [torch.rand_like(y) for y in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)

    def gradients(found: list[Tensor]) -> tuple[Tensor, ...]:
        product = sum(((w * y).sum() for w, y in zip(weights, found, strict=True)), torch.zeros(()))
        return torch.autograd.grad(product, parts)

    for mine, other in zip(gradients(ours), gradients(theirs), strict=True):
        assert torch.equal(mine, other)


def test_gradients_of_the_weights(conv: EasyAnimateCausalConv3d) -> None:
    conv.requires_grad_()
    parts = clip(conv, 1), clip(conv, 4)

    def gradients(found: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(torch.cat(found, 2).square().sum(), [*conv.parameters()])

    for mine, other in zip(
        gradients(by_us(conv, *parts)), gradients(by_diffusers(conv, *parts)), strict=True
    ):
        assert torch.equal(mine, other)


def test_a_frozen_convolution_keeps_no_activation(conv: EasyAnimateCausalConv3d) -> None:
    kept: list[Tensor] = []
    x = clip(conv, 4).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        causal_convolution(conv, x, None)
    assert [t.data_ptr() for t in kept] == [conv.weight.data_ptr()]


def test_no_past_is_made_where_no_frames_follow(conv: EasyAnimateCausalConv3d) -> None:
    x = clip(conv, 4)
    y, past = causal_convolution(conv, x, None, keep=False)
    assert past is None
    assert torch.equal(y, causal_convolution(conv, x, None)[0])


def test_the_gradient_of_the_past_is_no_view(conv: EasyAnimateCausalConv3d) -> None:
    """It would keep the gradient of all frames until those before are through."""
    past, x = clip(conv, 2).requires_grad_(), clip(conv, 4)
    (gradient,) = torch.autograd.grad(causal_convolution(conv, x, past)[0].sum(), past)
    assert gradient.untyped_storage().nbytes() == past.numel() * past.element_size()


def test_the_next_past_is_no_view_of_the_frames(conv: EasyAnimateCausalConv3d) -> None:
    x = clip(conv, 4)
    _, past = causal_convolution(conv, x, None)
    assert past is not None
    assert torch.equal(past, x[:, :, 2:])
    assert past.untyped_storage().nbytes() == past.numel() * past.element_size()

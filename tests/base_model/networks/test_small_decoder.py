"""The small decoder's network: its windows, its gradient, its shapes, the VAE that it is of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKLMagvit
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.networks.small_decoder import (
    SmallDecoder,
    SmallDecoderConfig,
    decode_small,
    latent_group,
    vae_fingerprint,
)
from base_model.tiny.configs import VAE

SMALL = SmallDecoderConfig(widths=(32, 24, 8), blocks=(1, 1, 1))


@pytest.fixture(scope="module")
def decoder() -> SmallDecoder:
    """Return a decoder of which no weight is 0, in float64."""
    generator = torch.Generator().manual_seed(0)
    made = SmallDecoder(SMALL).double().requires_grad_(False)
    for parameter in made.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.add_(0.05 * noise)
    return made


@pytest.fixture
def latents() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 16, 4, 3, 2, generator=generator, dtype=torch.float64)


def test_frames_of_a_clip(decoder: SmallDecoder, latents: Tensor) -> None:
    frames = decode_small(decoder, latents)
    assert frames.shape == (2, 13, 3, 24, 16)
    # worked by hand: latent i alone makes frames 4 i - 3 ... 4 i, the first one only the last
    for i in range(4):
        raw = decoder(latent_group(latents, i, SMALL.past)).clamp(0, 1)
        own = raw[:, -1:] if i == 0 else raw
        torch.testing.assert_close(frames[:, max(4 * i - 3, 0) : 4 * i + 1], own)


def test_a_group_repeats_the_first_latent(latents: Tensor) -> None:
    group = latent_group(latents, 1, 2)
    assert torch.equal(group, latents[:, :, [0, 0, 1]].transpose(1, 2))


@pytest.mark.parametrize("window", [slice(0, 1), slice(1, 5), slice(2, 4), slice(4, 13), None])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_window_is_that_of_the_whole_clip(
    decoder: SmallDecoder, latents: Tensor, window: slice | None, checkpointing: bool
) -> None:
    whole = decode_small(decoder, latents)[:, window or slice(None)]
    alone = decode_small(decoder, latents, window, checkpointing=checkpointing)
    torch.testing.assert_close(alone, whole, rtol=1e-12, atol=1e-12)


def test_later_latents_change_nothing(decoder: SmallDecoder, latents: Tensor) -> None:
    torch.testing.assert_close(
        decode_small(decoder, latents[:, :, :3]), decode_small(decoder, latents)[:, :9]
    )


def test_wrong_windows_are_told(decoder: SmallDecoder, latents: Tensor) -> None:
    for window in (slice(4, 4), slice(0, 4, 2)):
        with pytest.raises(GeneratorError, match="non-empty slice with step 1"):
            decode_small(decoder, latents, window)


def test_the_gradient_is_right_with_and_without_checkpoints(
    decoder: SmallDecoder, latents: Tensor
) -> None:
    x = latents[:1, :, :2, :1, :2].clone().requires_grad_()
    for checkpointing in (True, False):

        def frames(x: Tensor, checkpointing: bool = checkpointing) -> Tensor:
            return decode_small(decoder, x, checkpointing=checkpointing)

        assert torch.autograd.gradcheck(frames, (x,), atol=1e-5, fast_mode=True)


@pytest.mark.parametrize("detached", [True, False])
def test_context_without_gradient(decoder: SmallDecoder, latents: Tensor, detached: bool) -> None:
    x = latents.clone().requires_grad_()
    decode_small(decoder, x, slice(5, 9), detach_context=detached).sum().backward()
    assert x.grad is not None
    reached = [bool(x.grad[:, :, i].abs().sum() > 0) for i in range(4)]
    assert reached == ([False, False, True, False] if detached else [True, True, True, False])


def test_the_published_shape_on_the_meta_device() -> None:
    """49 frames of 384 x 672: the default of the published scripts; no memory, only shapes."""
    with torch.device("meta"):
        decoder = SmallDecoder(SmallDecoderConfig.of_width(256))
        latents = torch.empty(1, 16, 13, 48, 84, requires_grad=True)
        frames = decode_small(decoder, latents)
    assert frames.shape == (1, 49, 3, 384, 672)
    assert frames.requires_grad
    assert sum(p.numel() for p in decoder.parameters()) < 10_000_000
    window = decode_small(decoder, latents, slice(45, 49), detach_context=True)
    assert window.shape == (1, 4, 3, 384, 672)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLMagvit:
    torch.manual_seed(0)
    return AutoencoderKLMagvit(**VAE)


CHANGES: dict[str, Callable[[AutoencoderKLMagvit], object]] = {
    "decoder": lambda vae: vae.decoder.conv_in.weight.data.mul_(1.1),
    "first convolution": lambda vae: vae.post_quant_conv.weight.data.mul_(1.1),
    "scale": lambda vae: vae.register_to_config(scaling_factor=0.5),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_decoder_has_another_fingerprint(change: str) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKLMagvit(**VAE)
    before = vae_fingerprint(vae)
    assert len(bytes.fromhex(before)) == 32
    CHANGES[change](vae)
    assert vae_fingerprint(vae) != before


def test_the_fingerprint_is_of_the_values_alone(vae: AutoencoderKLMagvit) -> None:
    vae = vae.half()  # as in a file
    before = vae_fingerprint(vae)
    for dtype in (torch.float32, torch.float64, torch.float32, torch.bfloat16):
        assert vae_fingerprint(vae.to(dtype)) == before
    vae.encoder.conv_in.weight.data.zero_()
    assert vae_fingerprint(vae) == before

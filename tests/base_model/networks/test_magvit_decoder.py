"""The decoder latent by latent against diffusers' own forward pass, to the bit."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLMagvit
from torch import Tensor

from base_model.networks.magvit import clear_caches
from base_model.networks.magvit_decoder import LatentDecoding, causal_convolutions


def network(**options: Any) -> Any:
    torch.manual_seed(0)
    vae = AutoencoderKLMagvit(
        block_out_channels=[8, 8, 16, 16], layers_per_block=1, norm_num_groups=4, **options
    )
    return vae.requires_grad_(False).eval().decoder


def by_diffusers(decoder: Any, latents: list[Tensor]) -> list[Tensor]:
    clear_caches(decoder)
    return [decoder(z) for z in latents]


def by_us(decoder: Any, latents: list[Tensor]) -> list[Tensor]:
    past: tuple[Tensor | None, ...] = (None,) * len(causal_convolutions(decoder))
    video = []
    for i, z in enumerate(latents):
        decoding = LatentDecoding(decoder, first=i == 0, past=past)
        video.append(decoding(z))
        past = tuple(decoding.past)
    return video


@pytest.mark.parametrize("by_frame", [True, False])
def test_values_and_gradients_are_those_of_diffusers(by_frame: bool) -> None:
    decoder = network(spatial_group_norm=by_frame)
    decoder.mid_block.convs[0].output_scale_factor = 2.0  # 1 elsewhere, where nothing is divided
    latents = [torch.randn(2, 16, 1, 3, 2).requires_grad_() for _ in range(3)]
    ours, theirs = by_us(decoder, latents), by_diffusers(decoder, latents)
    assert [v.shape for v in ours] == [(2, 3, count, 24, 16) for count in (1, 4, 4)]
    weights = [torch.randn_like(v) for v in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)

    def gradients(video: list[Tensor]) -> tuple[Tensor, ...]:
        products = [(w * v).sum() for w, v in zip(weights, video, strict=True)]
        return torch.autograd.grad(torch.stack(products).sum(), latents)

    for mine, other in zip(gradients(ours), gradients(theirs), strict=True):
        assert torch.equal(mine, other)


def test_the_modules_keep_nothing() -> None:
    decoder = network()
    by_us(decoder, [torch.randn(1, 16, 1, 2, 2)] * 2)
    assert all(conv.prev_features is None for conv in causal_convolutions(decoder))

"""The decoder latent by latent against diffusers' own forward pass, to the bit."""

from collections.abc import Iterator
from contextlib import contextmanager
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


def by_us(decoder: Any, latents: list[Tensor], *, checkpointing: bool = False) -> list[Tensor]:
    past: tuple[Tensor | None, ...] = (None,) * len(causal_convolutions(decoder))
    video = []
    for i, z in enumerate(latents):
        decoding = LatentDecoding(decoder, first=i == 0, past=past, checkpointing=checkpointing)
        video.append(decoding(z))
        past = tuple(decoding.past)
    return video


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("by_frame", [True, False])
def test_values_and_gradients_are_those_of_diffusers(by_frame: bool, checkpointing: bool) -> None:
    decoder = network(spatial_group_norm=by_frame)
    decoder.mid_block.convs[0].output_scale_factor = 2.0  # 1 elsewhere, where nothing is divided
    latents = [torch.randn(2, 16, 1, 3, 2).requires_grad_() for _ in range(3)]
    ours = by_us(decoder, latents, checkpointing=checkpointing)
    theirs = by_diffusers(decoder, latents)
    assert [v.shape for v in ours] == [(2, 3, count, 24, 16) for count in (1, 4, 4)]
    weights = [torch.randn_like(v) for v in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)

    def gradients(video: list[Tensor]) -> tuple[Tensor, ...]:
        products = [(w * v).sum() for w, v in zip(weights, video, strict=True)]
        return torch.autograd.grad(torch.stack(products).sum(), latents)

    for mine, other in zip(gradients(ours), gradients(theirs), strict=True):
        assert torch.equal(mine, other)


def kept(decoder: Any, x: Tensor, past: tuple[Tensor, ...], *, checkpointing: bool) -> list[int]:
    """Return the sizes of the storages kept for the backward pass, without weights."""
    found: dict[int, int] = {}
    weights = {p.data_ptr() for p in decoder.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        decoding = LatentDecoding(decoder, first=False, past=past, checkpointing=checkpointing)
        alive = decoding(x)
    del alive
    return [*found.values()]


def test_with_checkpoints_the_inputs_of_the_norms_are_kept_and_nothing_else() -> None:
    decoder = network()
    start = LatentDecoding(decoder, first=True, past=(None,) * len(causal_convolutions(decoder)))
    start(torch.randn(1, 16, 1, 2, 2))
    sizes, hooks = [], []
    for norm in (m for m in decoder.modules() if isinstance(m, torch.nn.GroupNorm)):
        hooks.append(norm.register_forward_pre_hook(lambda _, x: sizes.append(4 * x[0].numel())))
    x = torch.randn(1, 16, 1, 2, 2).requires_grad_()
    lean = kept(decoder, x, tuple(start.past), checkpointing=True)
    assert len(sizes) == len(hooks) == 19
    assert sorted(lean) == sorted(sizes)
    assert sum(kept(decoder, x, tuple(start.past), checkpointing=False)) > 1.9 * sum(lean)


def test_the_context_is_entered_around_each_norm_and_once_more_where_it_is_repeated() -> None:
    decoder, inside, seen = network(), [], list[int]()

    @contextmanager
    def around() -> Iterator[None]:
        inside.append(None)
        try:
            yield
        finally:  # a repeated run ends early, with an exception
            inside.pop()

    for norm in (m for m in decoder.modules() if isinstance(m, torch.nn.GroupNorm)):
        norm.register_forward_pre_hook(lambda *_: seen.append(len(inside)))
    for checkpointing, runs in ((False, 1), (True, 2)):
        seen.clear()
        past = (None,) * len(causal_convolutions(decoder))
        x = torch.randn(1, 16, 1, 2, 2).requires_grad_()
        options: dict[str, Any] = {"checkpointing": checkpointing, "around": around}
        LatentDecoding(decoder, first=True, past=past, **options)(x).sum().backward()
        assert seen == [1] * 19 * runs


def test_the_modules_keep_nothing() -> None:
    decoder = network()
    by_us(decoder, [torch.randn(1, 16, 1, 2, 2)] * 2)
    assert all(conv.prev_features is None for conv in causal_convolutions(decoder))

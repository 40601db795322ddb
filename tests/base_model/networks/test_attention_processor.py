"""The faster attention against diffusers' processor, values and gradients, to the bit."""

from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_easyanimate import (
    EasyAnimateAttnProcessor2_0,
    EasyAnimateTransformerBlock,
)
from torch import Tensor

from base_model.networks.attention_processor import PublishedAttention, rotated
from base_model.networks.corrections import TextStreamProjection
from base_model.networks.rotary import rotary_table


def attention(shared: bool, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    block = EasyAnimateTransformerBlock(
        dim=64, num_attention_heads=2, attention_head_dim=32, time_embed_dim=16,
        is_mmdit_block=not shared,
    )  # fmt: skip
    return block.attn1.to(dtype)


def run(attn: Any, processor: Any, dtype: torch.dtype, grad: bool) -> list[Tensor]:
    """Both streams, and the gradients of the inputs and of every weight."""
    draw = torch.Generator().manual_seed(1)
    video, text = (torch.randn(2, n, 64, generator=draw).to(dtype) for n in (24, 10))
    table = rotary_table(2, 6, 8, 32)
    if not grad:
        with torch.no_grad():
            return list(processor(attn, video, text, image_rotary_emb=table))
    inputs = [video.requires_grad_(), text.requires_grad_()]
    streams = processor(attn, *inputs, image_rotary_emb=table)
    weights = [torch.randn(s.shape, generator=draw).to(dtype) for s in streams]
    total = sum(((w * s).sum() for w, s in zip(weights, streams, strict=True)), torch.zeros(()))
    weights = [p for p in attn.parameters() if p.requires_grad]
    found = torch.autograd.grad(total, inputs + weights, allow_unused=True)
    return [*streams, *(g for g in found if g is not None)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_same_bits_as_the_corrected_library(shared: bool, grad: bool, dtype: torch.dtype) -> None:
    attn, theirs = attention(shared, dtype), EasyAnimateAttnProcessor2_0()
    reference = TextStreamProjection(theirs) if shared else theirs
    expected = run(attn, reference, dtype, grad)
    found = run(attn, PublishedAttention(), dtype, grad)
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        assert mine.dtype == other.dtype
        assert torch.equal(mine, other)


def test_a_rotation_by_hand() -> None:
    """A quarter turn of the first pair of channels, none of the second."""
    cos, sin = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    assert rotated(x, cos, sin).flatten().tolist() == [-2.0, 1.0, 3.0, 4.0]


def test_compiled_it_is_the_real_product(monkeypatch: pytest.MonkeyPatch) -> None:
    x, (cos, sin) = torch.randn(2, 3, 24, 32), rotary_table(2, 6, 8, 32)
    expected = rotated(x, cos, sin)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(torch, "complex", None)
    assert torch.equal(rotated(x, cos, sin), expected)

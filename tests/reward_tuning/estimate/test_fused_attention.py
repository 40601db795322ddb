"""Attention on the meta device: what it saves, and that real tensors do not notice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from reward_tuning.estimate.fused_attention import fused_attention
from reward_tuning.estimate.live_memory import LiveMemory

SHAPE = (2, 3, 64, 16)


def bytes_held(shape: tuple[int, ...], **options: Tensor | bool) -> int:
    x = torch.empty(shape, device="meta", requires_grad=True)
    memory = LiveMemory(lambda: "")
    with memory:
        y = F.scaled_dot_product_attention(x, x, x, **options)
    held = sum(memory.now.values())
    assert y.shape == x.shape
    return held


def test_only_the_output_and_a_number_for_each_query_are_held() -> None:
    with fused_attention():
        held = bytes_held(SHAPE)
        assert held == 4 * (2 * 3 * 64 * 16 + 2 * 3 * 64)
    assert bytes_held(SHAPE) > held + 4 * 2 * 3 * 64 * 64  # taken apart: the score matrices, too


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.bfloat16])
def test_masks(dtype: torch.dtype) -> None:
    mask = torch.empty(64, 64, device="meta", dtype=dtype)
    with fused_attention():
        assert bytes_held(SHAPE, attn_mask=mask) < 4 * 2 * 3 * 64 * 64


def test_shared_keys() -> None:
    query = torch.empty(1, 4, 8, 16, device="meta")
    key = torch.empty(1, 2, 8, 16, device="meta")
    with fused_attention():
        seen = F.scaled_dot_product_attention(query, key, key, enable_gqa=True)
    assert seen.shape == query.shape


def test_tensors_with_values_are_computed_as_ever() -> None:
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    plain = F.scaled_dot_product_attention(x, x, x, is_causal=True)
    with fused_attention():
        assert torch.equal(F.scaled_dot_product_attention(x, x, x, is_causal=True), plain)
    before = F.scaled_dot_product_attention
    with pytest.raises(ZeroDivisionError), fused_attention():
        raise ZeroDivisionError
    assert F.scaled_dot_product_attention is before

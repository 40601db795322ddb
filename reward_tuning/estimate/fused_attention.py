"""Attention on the meta device with the memory of a fused kernel.

The meta device has no kernels, so PyTorch takes attention apart into products whose score matrices
no GPU and no CPU ever holds. Within the context it runs as one operator there, which saves the
output and one number for each query and head, as the kernels do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@contextmanager
def fused_attention() -> Iterator[None]:
    """Run `scaled_dot_product_attention` of meta tensors as one operator within the context."""
    plain = F.scaled_dot_product_attention

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if not query.is_meta:
            options: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa}
            result: Tensor = plain(query, key, value, attn_mask, dropout_p, is_causal, **options)
            return result
        if enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = (x.repeat_interleave(groups, dim=-3) for x in (key, value))
        if attn_mask is not None and attn_mask.dtype != torch.bool:
            attn_mask = attn_mask.to(query.dtype)
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        output: Tensor = fused(
            query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
        )[0]
        return output

    F.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain

"""The attention of a block with less work around its products, equal to diffusers' to the bit.

diffusers' `EasyAnimateAttnProcessor2_0` rotates query and key with four temporary tensors each and
writes the result into a slice, which the backward pass copies in full. Here the rotation is
one product of complex numbers (in float32). Where no gradient is needed, text and video that share
their output projection are projected together.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from base_model.core.family import FAMILY


class PublishedAttention:
    """Attention processor of every block, with the text stream projected as published.

    `to_out` and the other layers are looked up at each call, so adapters on them count.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend over text and video `(b, tokens, channels)`; return (video, text)."""
        text, video = encoder_hidden_states, hidden_states
        count, shared = text.shape[1], attn.add_q_proj is None
        tokens = torch.cat([text, video], dim=1) if shared else video
        query = _heads(attn.to_q(tokens), attn, attn.norm_q)
        key = _heads(attn.to_k(tokens), attn, attn.norm_k)
        value = _heads(attn.to_v(tokens), attn)
        if shared:
            text_query, query = query[:, :, :count], query[:, :, count:]
            text_key, key = key[:, :, :count], key[:, :, count:]
        else:
            text_query = _heads(attn.add_q_proj(text), attn, attn.norm_added_q)
            text_key = _heads(attn.add_k_proj(text), attn, attn.norm_added_k)
            value = torch.cat([_heads(attn.add_v_proj(text), attn), value], dim=2)
        if image_rotary_emb is not None:
            query, key = rotated(query, *image_rotary_emb), rotated(key, *image_rotary_emb)
        query = torch.cat([text_query, query], dim=2)
        key = torch.cat([text_key, key], dim=2)
        states = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        states = states.transpose(1, 2).flatten(2, 3).to(query.dtype)
        linear, dropout = attn.to_out
        if shared and not torch.is_grad_enabled() and states.dtype == torch.float32:
            # With a gradient, that of an adapter would be summed over all tokens at once: other
            # bits than over each stream. In bfloat16 the product itself has other bits.
            states = dropout(linear(states))
            return states[:, count:], states[:, :count]
        text, video = states[:, :count], states[:, count:]
        text = dropout(linear(text)) if shared else attn.to_add_out(text)
        return dropout(linear(video)), text


def use_published_attention(transformer: Any) -> Any:
    """Give every block of an `EasyAnimateTransformer3DModel` this attention, in place."""
    for block in getattr(transformer, FAMILY.blocks):
        block.attn1.set_processor(PublishedAttention())
    return transformer


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of channels by its angle (RoPE, Su et al. 2021, arXiv:2104.09864).

    Args:
        x: `(b, heads, n, d)`.
        cos: Cosines `(n, d)`, float32, each twice: for both channels of a pair.
        sin: Sines, likewise.

    Returns:
        Shape and dtype of x. The product is computed in float32.
    """
    # The compiler fuses real products, and no complex ones. In bfloat16 diffusers rounds the two
    # parts of the gradient before it adds them, which one product would not.
    if torch.compiler.is_compiling() or x.dtype != torch.float32:
        turned: Tensor = apply_rotary_emb(x, (cos, sin))
        return turned
    turns = torch.complex(cos[:, ::2], sin[:, ::2]).to(x.device)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2)


def _heads(x: Tensor, attn: Any, norm: Any = None) -> Tensor:
    """Split `(b, n, heads * d)` into heads, `(b, heads, n, d)`, and normalise each."""
    x = x.unflatten(2, (attn.heads, -1)).transpose(1, 2)
    return x if norm is None else norm(x)

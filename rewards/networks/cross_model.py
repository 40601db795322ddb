"""MPS's cross model: an image's tokens attend to a prompt's words and to each other.

As in PaLM there is one key and value for all heads, and the feed-forward part is parallel to the
attention, not after it (Zhang et al., 2405.14705). Modules are named as in the published file.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEED_FORWARD = 4
"""Width of a feed-forward part divided by that of the tokens."""


class WeightNorm(nn.Module):
    """A layer norm whose bias is a buffer of zeros, as in PaLM."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.register_buffer("bias", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """`(..., width)` -> the same."""
        return F.layer_norm(x, x.shape[-1:], self.weight, self.get_buffer("bias"))


class SwiGlu(nn.Module):
    """Half of the channels, gated by the other half (Shazeer, 2002.05202)."""

    def forward(self, x: Tensor) -> Tensor:
        """`(..., 2 d)` -> `(..., d)`."""
        value, gate = x.chunk(2, dim=-1)
        return F.silu(gate) * value


class Rotary(nn.Module):
    """Rotary positions of one sequence (Su et al., 2104.09864), halves as pairs.

    Attributes:
        inv_freq: `(head_width / 2,)` radians a position; a tensor of the checkpoint.
    """

    def __init__(self, head_width: int) -> None:
        super().__init__()
        exponents = torch.arange(0, head_width, 2).float() / head_width
        self.register_buffer("inv_freq", 10000.0**-exponents)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., tokens, head_width)` -> the same, each token rotated by its position."""
        # Angles in fp32 (fp64 for gradient checks): bf16 has no integer beyond 256.
        frequency = self.get_buffer("inv_freq")
        frequency = frequency.to(torch.promote_types(frequency.dtype, torch.float32))
        places = torch.arange(x.shape[-2], device=x.device, dtype=frequency.dtype)
        angle = torch.outer(places, frequency).repeat(1, 2)
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        return x * angle.cos().to(x.dtype) + turned * angle.sin().to(x.dtype)


class Residual(nn.Module):
    """`x + fn(x)`; the published names contain `fn`."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """`(n, tokens, width)` -> the same."""
        added: Tensor = self.fn(x, *others)
        return x + added


class TextAttention(nn.Module):
    """Image tokens attend to text tokens, with a parallel feed-forward part."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        inner = FEED_FORWARD * width
        self.heads = heads
        self.norm = WeightNorm(width)
        self.to_q = nn.Linear(width, heads * head_width, bias=False)
        self.to_kv = nn.Linear(width, 2 * head_width, bias=False)
        self.to_out = nn.Linear(heads * head_width, width, bias=False)
        self.ff = nn.Sequential(
            nn.Linear(width, 2 * inner, bias=False), SwiGlu(), nn.Linear(inner, width, bias=False)
        )

    def forward(self, x: Tensor, text: Tensor, keep: Tensor) -> Tensor:
        """Image `(n, i, width)`, text `(n, j, width)` and `(n, j)` bool -> as image."""
        x = self.norm(x)
        key, value = self.to_kv(text).chunk(2, dim=-1)
        read = _attend(self.to_q(x), key, value, self.heads, keep[:, None, None, :])
        added: Tensor = self.to_out(read) + self.ff(x)
        return added


class ImageAttention(nn.Module):
    """Image tokens attend to each other; one projection gives queries, key, value and the rest."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        inner = FEED_FORWARD * width
        self.heads = heads
        self.widths = (heads * head_width, head_width, head_width, 2 * inner)
        self.norm = WeightNorm(width)
        self.rotary_emb = Rotary(head_width)
        self.fused_attn_ff_proj = nn.Linear(width, sum(self.widths), bias=False)
        self.attn_out = nn.Linear(heads * head_width, width, bias=False)
        self.ff_out = nn.Sequential(SwiGlu(), nn.Linear(inner, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """`(n, i, width)` -> the same."""
        projected = self.fused_attn_ff_proj(self.norm(x))
        query, key, value, inner = projected.split(self.widths, dim=-1)
        seen = _attend(query, key, value, self.heads, None, self.rotary_emb)
        added: Tensor = self.attn_out(seen) + self.ff_out(inner)
        return added


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    keep: Tensor | None,
    rotary: Rotary | None = None,
) -> Tensor:
    """Attend with many query heads, one key and value: `(n, i, heads d)`, twice `(n, j, d)`."""
    query = query.unflatten(-1, (heads, -1)).transpose(1, 2)
    key, value = key[:, None], value[:, None]
    if rotary is not None:
        query, key = rotary(query), rotary(key)
    key, value = (part.expand(-1, heads, -1, -1) for part in (key, value))
    read = F.scaled_dot_product_attention(query, key, value, attn_mask=keep)
    return read.transpose(1, 2).flatten(2)


class CrossModel(nn.Module):
    """Layers of attention to the text, then among the image's tokens."""

    def __init__(self, width: int, layers: int, heads: int, head_width: int) -> None:
        super().__init__()
        size = (width, heads, head_width)
        pairs = [
            nn.ModuleList([Residual(TextAttention(*size)), Residual(ImageAttention(*size))])
            for _ in range(layers)
        ]
        self.layers = nn.ModuleList(pairs)

    def blocks(self) -> list[nn.Module]:
        """Return every block, in execution order."""
        return [block for pair in self.layers for block in pair.children()]

    def forward(self, image: Tensor, text: Tensor, keep: Tensor) -> Tensor:
        """`(n, i, width)`, `(n, j, width)` and `(n, j)` bool -> `(n, i, width)`."""
        for pair in self.layers:
            assert isinstance(pair, nn.ModuleList)
            image = pair[1](pair[0](image, text, keep))
        return image

"""The image side of SigLIP: a vision transformer with an attention-pooling head (2303.15343).

Names, shapes and functions are those of transformers' `SiglipVisionModel`. It is reimplemented for
three reasons: layer norms can stay fp32 in bf16, blocks are recomputed in evaluation mode too
(transformers does so in training mode only), and the names of weights do not change with the
version of a library.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rewards.errors import RewardError


@dataclass(frozen=True)
class SiglipConfig:
    """Sizes of a SigLIP image tower, by transformers' names.

    Attributes:
        hidden_size: Width of the tokens and of the features.
        intermediate_size: Width of the feed-forward layers.
        num_hidden_layers: Blocks.
        num_attention_heads: Heads of the blocks and of the pooling head.
        image_size: Side of the square it sees, pixels.
        patch_size: Side of a token's patch, pixels.
        layer_norm_eps: Epsilon of every layer norm.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise RewardError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}; give a SigLIP whose heads have equal widths"
            )


CONFIGS = {
    "siglip-so400m-patch14-384": SiglipConfig(1152, 4304, 27, 16, 384, 14),
}
"""Sizes by the name that a recipe may give as the tower's architecture."""


class Norm(nn.LayerNorm):
    """A layer norm that computes in its weights' dtype, fp32 in a bf16 tower."""

    def forward(self, x: Tensor) -> Tensor:
        """`(..., d)` -> the same shape and dtype."""
        y = F.layer_norm(
            x.to(self.weight.dtype), self.normalized_shape, self.weight, self.bias, self.eps
        )
        return y.to(x.dtype)


class Attention(nn.Module):
    """Self-attention without a mask."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(width, width) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(n, tokens, d)` -> the same shape."""
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two layers with a tanh GELU between."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., d)` -> the same shape."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.layer_norm1, self.layer_norm2 = Norm(width, eps=eps), Norm(width, eps=eps)
        self.self_attn = Attention(width, config.num_attention_heads)
        self.mlp = FeedForward(width, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, tokens, d)` -> the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class PoolingHead(nn.Module):
    """A learned query that attends to all tokens, then a feed-forward with a residual."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.probe = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.attention = nn.MultiheadAttention(width, config.num_attention_heads, batch_first=True)
        self.layernorm = Norm(width, eps=config.layer_norm_eps)
        self.mlp = FeedForward(width, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, tokens, d)` -> `(n, d)`."""
        pooled = self.attention(self.probe.expand(len(x), -1, -1), x, x, need_weights=False)[0]
        pooled = pooled + self.mlp(self.layernorm(pooled))
        features: Tensor = pooled[:, 0]
        return features


class _Embeddings(nn.Module):
    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch)
        self.position_embedding = nn.Embedding((config.image_size // patch) ** 2, width)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        return patches + self.position_embedding.weight


class _Encoder(nn.Module):
    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))


class SiglipVision(nn.Module):
    """A SigLIP image tower with random weights.

    Attributes:
        config: Sizes of the tower.
        recompute: Whether blocks are recomputed in the backward pass, to save memory.
    """

    def __init__(self, config: SiglipConfig, *, recompute: bool = False) -> None:
        super().__init__()
        self.config = config
        self.recompute = recompute
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.post_layernorm = Norm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = PoolingHead(config)

    def forward(self, pixels: Tensor) -> Tensor:
        """`(n, 3, size, size)` normalised, in the weights' dtype -> `(n, d)` of any length."""
        x: Tensor = self.embeddings(pixels)
        for block in self.encoder.layers:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        features: Tensor = self.head(self.post_layernorm(x))
        return features

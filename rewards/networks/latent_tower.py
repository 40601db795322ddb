"""A small CLIP on noisy latents: convolutions conditioned on sigma, and a text tower.

There are no position embeddings, so a tower trained at one length and size accepts others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.clip_towers.tokenizers import import_open_clip
from rewards.errors import RewardError

FREQUENCIES = 16
"""Number of cosines of sigma that the sigma embedding starts from."""

SIGMA_WIDTH = 32
GROUP = 8
"""Channels that are normalised together."""


class LatentBlock(nn.Module):
    """A residual block: 3 x 3 within each latent frame, then 3 along time; sigma in between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(width // GROUP, width)
        self.space = nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1))
        self.norm2 = nn.GroupNorm(width // GROUP, width)
        self.modulation = nn.Linear(SIGMA_WIDTH, 2 * width)
        self.time = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """`(b, width, t, h, w)` and the embedded sigma `(b, SIGMA_WIDTH)` -> like `x`."""
        hidden = self.norm2(self.space(F.silu(self.norm1(x))))
        scale, shift = self.modulation(sigma)[:, :, None, None, None].chunk(2, dim=1)
        return x + self.time(F.silu(hidden * (1 + scale) + shift))


class LatentLevel(nn.Module):
    """A convolution into a level, with stride 2 unless it is the first, and the level's blocks."""

    def __init__(self, before: int, width: int, depth: int, *, halve: bool) -> None:
        super().__init__()
        self.enter = (
            nn.Conv3d(before, width, (1, 2, 2), stride=(1, 2, 2))
            if halve
            else nn.Conv3d(before, width, (1, 3, 3), padding=(0, 1, 1))
        )
        self.blocks = nn.ModuleList(LatentBlock(width) for _ in range(depth))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """`(b, before, t, h, w)` -> `(b, width, t, h, w)`, or half as high and wide."""
        x = self.enter(x)
        for block in self.blocks:
            x = block(x, sigma)
        return x


class LatentTower(nn.Module):
    """Features of noisy latents.

    Args:
        embed_dim: Width of the features.
        channels: Channels of the latents, 16 for EasyAnimateV5.1.
        widths: Channels of each level, multiples of 8; height and width halve between levels.
        depths: Blocks of each level.
        heads: Heads of the attention pooling.

    Raises:
        ValueError: A width is not a multiple of 8, or there is not one depth per width.
    """

    def __init__(
        self,
        embed_dim: int,
        channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        heads: int,
    ) -> None:
        super().__init__()
        if any(width % GROUP or width < GROUP for width in widths) or len(depths) != len(widths):
            raise ValueError(
                f"widths are {list(widths)} and depths {list(depths)}; widths must be multiples of "
                f"{GROUP}, with one depth each"
            )
        self.channels = channels
        self.sigma = nn.Linear(FREQUENCIES, SIGMA_WIDTH)
        before = (channels, *widths)
        self.levels = nn.ModuleList(
            LatentLevel(before[i], widths[i], depth, halve=i > 0) for i, depth in enumerate(depths)
        )
        self.norm = nn.GroupNorm(widths[-1] // GROUP, widths[-1])
        self.attention = nn.Linear(widths[-1], heads)
        self.out = nn.Linear(heads * widths[-1], embed_dim)

    @property
    def multiple(self) -> int:
        """Number that a latent's height and width must be multiples of."""
        return 2 ** (len(self.levels) - 1)

    def forward(self, latents: Tensor, sigma: Tensor) -> Tensor:
        """Encode latents at their noise levels.

        Args:
            latents: `(b, channels, t, h, w)`.
            sigma: `(b,)` in [0, 1].

        Returns:
            `(b, embed_dim)`, not normalised.
        """
        angles = torch.pi * sigma[:, None] * torch.arange(FREQUENCIES, device=sigma.device)
        embedded = F.silu(self.sigma(torch.cos(angles).to(latents.dtype)))
        x = latents
        for level in self.levels:
            x = level(x, embedded)
        x = F.silu(self.norm(x)).flatten(2)
        attention = self.attention(x.transpose(1, 2)).softmax(dim=1)
        return self.out((x @ attention).flatten(1))


class LatentTextModel(nn.Module):
    """The two towers and CLIP's temperature, as in a file.

    Attributes:
        latent: `LatentTower`.
        text: open_clip's text transformer.
        logit_scale: `()`, used in training only.
    """

    def __init__(self, embed_dim: int, latent_cfg: Mapping[str, Any], text_cfg: Any) -> None:
        import_open_clip()
        from open_clip.transformer import TextTransformer

        super().__init__()
        self.latent = LatentTower(embed_dim, **latent_cfg)
        self.text: Any = TextTransformer(**text_cfg, output_dim=embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_latents(self, latents: Tensor, sigma: Tensor) -> Tensor:
        """`(b, channels, t, h, w)` and `(b,)` -> `(b, embed_dim)`, not normalised."""
        return self.latent(latents, sigma)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """`(b, length)` token numbers -> `(b, embed_dim)`, not normalised."""
        return self.text(tokens)


def build_latent_model(architecture: Mapping[str, Any]) -> LatentTextModel:
    """Build the model of an architecture, with random weights.

    Args:
        architecture: `embed_dim`, `latent_cfg` (the arguments of `LatentTower`) and
            `text_cfg` as in open_clip.

    Raises:
        RewardError: The architecture is not that of a judge of latents.
    """
    try:
        return LatentTextModel(**architecture)
    except (TypeError, ValueError) as error:
        raise RewardError(f"the architecture does not fit a judge of latents: {error}") from error

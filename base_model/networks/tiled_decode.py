"""Decode large frames tile by tile: the memory of one tile, blended overlaps, differentiable.

The decoder's group norms take their statistics over the whole picture. A tile with statistics of
its own gets other colours and contrasts than its neighbour, which no blending hides: 21 dB against
the decode in one piece, on the embedded VAE. All tiles therefore share statistics, which are taken
once without gradient: of the whole picture (43 dB and more), or of every n-th latent (33 to 36 dB),
which needs no more memory than a tile. (Tiled VAEs of image models do the latter.)
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle

from base_model.errors import GeneratorError
from base_model.networks import magvit

Statistics: TypeAlias = dict[tuple[int, int], tuple[Tensor, Tensor]]
"""Mean and variance, `(samples and frames, groups, 1)`, by (latent frame, norm)."""

Source = Literal["whole", "thinned"]
"""`whole`: one decode in one piece, without gradient. `thinned`: one decode of every n-th latent,
few enough for one tile."""


@dataclass(frozen=True)
class Tiling:
    """Tiling of a picture, in latents of 8 x 8 pixels.

    Attributes:
        tile: Side of a tile.
        overlap: Smallest overlap of neighbouring tiles; their weights are linear in it.
    """

    tile: int = 48
    overlap: int = 12

    def __post_init__(self) -> None:
        if not 0 < 2 * self.overlap <= self.tile:
            raise GeneratorError(
                f"Tiles of {self.tile} latents with an overlap of {self.overlap}: the overlap must "
                "be at least 1 and at most half a tile."
            )


def decode_tiled(
    vae: Any,
    latents: Tensor,
    frames: slice | None = None,
    *,
    tiling: Tiling | None = None,
    statistics: Source = "thinned",
) -> Tensor:
    """Decode like `base_model.networks.magvit.decode`, tile by tile.

    A picture that one tile covers is decoded in one piece, exactly.

    Args:
        vae: An `AutoencoderKLMagvit`.
        latents: `(b, 16, t, h/8, w/8)`, scaled.
        frames: Frames to decode; None decodes all.
        tiling: Tiling of the picture; None takes the defaults.
        statistics: Source of the norms' statistics: "whole" or "thinned".

    Returns:
        `(b, f, 3, H, W)` in [0, 1], float32 (float64 for a float64 VAE). Differentiable, with the
        statistics as constants: every tile is one checkpoint, so a backward pass holds one.

    Raises:
        GeneratorError: The slice is empty or has a step other than 1, or the source of the
            statistics is unknown.
    """
    tiling = tiling or Tiling()
    if statistics not in ("whole", "thinned"):
        raise GeneratorError(
            f"The source of the norms' statistics must be 'whole' (one decode in one piece without "
            f"gradient) or 'thinned' (one decode of every n-th latent), got {statistics!r}."
        )
    if max(latents.shape[-2:]) <= tiling.tile:
        return magvit.decode(vae, latents, frames)
    weight = vae.post_quant_conv.weight
    z = (latents / vae.config.scaling_factor).to(weight.device, weight.dtype)
    step = 1 if statistics == "whole" else math.ceil(max(z.shape[-2:]) / tiling.tile)
    table = norm_statistics(vae, z[..., ::step, ::step], frames)
    video, total = z.new_zeros(()), z.new_zeros(())
    for top, left, mask in _tiles(z, tiling):
        piece = z[..., top : top + tiling.tile, left : left + tiling.tile]
        if torch.is_grad_enabled() and z.requires_grad:
            decoded = checkpoint(
                _decode_tile,
                vae,
                piece,
                frames,
                table,
                use_reentrant=False,
                preserve_rng_state=False,
            )
        else:
            decoded = _decode_tile(vae, piece, frames, table)
        scale = decoded.shape[-1] // piece.shape[-1]
        height, width = (n * scale for n in z.shape[-2:])
        weights = _enlarged(mask, scale)
        place = (
            left * scale,
            width - left * scale - weights.shape[1],
            top * scale,
            height - top * scale - weights.shape[0],
        )
        video = video + F.pad(decoded * weights, place)
        total = total + F.pad(weights, place)
    video = (video / total).to(torch.promote_types(video.dtype, torch.float32))
    return (video / 2 + 0.5).clamp(0, 1).transpose(1, 2)


@torch.no_grad()
def norm_statistics(vae: Any, z: Tensor, frames: slice | None = None) -> Statistics:
    """Record the statistics of the decoder's group norms in one decode.

    Args:
        vae: An `AutoencoderKLMagvit`.
        z: `(b, 16, t, h, w)`, unscaled, in the VAE's dtype.
        frames: As in `decode_tiled`.

    Returns:
        Mean and variance of every norm in every latent frame, without gradient.
    """
    table: Statistics = {}
    norms = _norms(vae)

    @contextmanager
    def recording(latent: int) -> Iterator[None]:
        def hook(norm: Any, arguments: tuple[Tensor]) -> None:
            groups = arguments[0].flatten(2).unflatten(1, (norm.num_groups, -1)).flatten(2)
            variance, mean = torch.var_mean(groups, dim=2, correction=0, keepdim=True)
            table[latent, norms.index(norm)] = mean, variance

        with _hooks([norm.register_forward_pre_hook(hook) for norm in norms]):
            yield

    magvit.decode_video(vae, z, frames, around_latent=recording)
    return table


def _decode_tile(vae: Any, z: Tensor, frames: slice | None, table: Statistics) -> Tensor:
    """Decode one tile, `(b, 3, f, 8 h, 8 w)`, with the picture's statistics in its norms."""
    norms = _norms(vae)

    @contextmanager
    def shared(latent: int) -> Iterator[None]:
        def hook(norm: Any, arguments: tuple[Tensor], _: Tensor) -> Tensor:
            x = arguments[0]
            mean, variance = table[latent, norms.index(norm)]
            groups = x.flatten(2).unflatten(1, (norm.num_groups, -1)).flatten(2)
            scaled = ((groups - mean) * (variance + norm.eps).rsqrt()).view_as(x)
            channels = (1, -1) + (1,) * (x.ndim - 2)
            return scaled * norm.weight.view(channels) + norm.bias.view(channels)

        with _hooks([norm.register_forward_hook(hook) for norm in norms]):
            yield

    return magvit.decode_video(vae, z, frames, around_latent=shared)


@contextmanager
def _hooks(handles: list[RemovableHandle]) -> Iterator[None]:
    """Remove hooks at the end."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _norms(vae: Any) -> list[Any]:
    return [m for m in vae.decoder.modules() if isinstance(m, torch.nn.GroupNorm)]


def _tiles(z: Tensor, tiling: Tiling) -> Iterator[tuple[int, int, Tensor]]:
    """Yield top and left of every tile, and its weights `(h, w)`, in latents."""
    height, width = z.shape[-2:]
    for top in _starts(height, tiling):
        for left in _starts(width, tiling):
            yield (
                top,
                left,
                (_ramp(height, top, tiling)[:, None] * _ramp(width, left, tiling)).to(z),
            )


def _starts(length: int, tiling: Tiling) -> list[int]:
    """Return the first latents of the tiles along one side, evenly spaced."""
    if length <= tiling.tile:
        return [0]
    count = math.ceil((length - tiling.overlap) / (tiling.tile - tiling.overlap))
    return [round(i * (length - tiling.tile) / (count - 1)) for i in range(count)]


def _ramp(length: int, start: int, tiling: Tiling) -> Tensor:
    """Return weights along one side: linear in the overlaps, constant at the picture's edges."""
    size = min(tiling.tile, length)
    place = torch.arange(size, dtype=torch.float64) + 0.5
    weights = torch.ones(size, dtype=torch.float64)
    if start > 0:
        weights = torch.minimum(weights, place / tiling.overlap)
    if start + size < length:
        weights = torch.minimum(weights, (size - place) / tiling.overlap)
    return weights


def _enlarged(mask: Tensor, scale: int) -> Tensor:
    return F.interpolate(mask[None, None], scale_factor=scale, mode="bilinear")[0, 0]

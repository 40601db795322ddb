"""A small decoder: what the VAE's decoder shows, for a tenth of its work or less.

The idea is that of the tiny autoencoders for previews (TAESD, TAEHV: github.com/madebyollin): a
plain convolutional network that is distilled from the true decoder. The Magvit decoder is causal in
time and carries a cache from latent to latent. Here the four frames of a latent are a function of
that latent and of a few before it, and of nothing else: every window of a clip decodes alone, to
the same frames as within the whole clip, and needs no context.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from base_model.core.family import FAMILY
from base_model.networks.magvit import frame_count, frame_window, latent_count

DecodedBy = Literal["vae", "small", "small-gradient"]
"""`vae`: the true frames with the true gradient. `small`: both of the small decoder.
`small-gradient`: the true frames, with the gradient of the small decoder."""


@dataclass(frozen=True)
class SmallDecoderConfig:
    """Architecture of a small decoder.

    Attributes:
        latent_channels: Channels of the VAE's latents.
        past: Latents before its own that each group of frames sees.
        widths: Channels at h/8 and at h/4, where the frames of a latent share their features, and
            at h/2, where each frame has its own.
        blocks: Residual blocks at each of these sizes.
        groups: Groups of the norms at h/8 and h/4, which divide their widths.
    """

    latent_channels: int = FAMILY.latent_channels
    past: int = 2
    widths: tuple[int, int, int] = (64, 48, 16)
    blocks: tuple[int, int, int] = (3, 2, 1)
    groups: int = 8

    @classmethod
    def of_width(cls, width: int) -> SmallDecoderConfig:
        """Return the architecture with `width` channels at h/8, a multiple of 32."""
        return cls(widths=(width, 3 * width // 4, width // 4))


class SmallDecoder(nn.Module):
    """Groups of neighbouring latents to the frames of the last one.

    Args:
        config: The architecture.
    """

    def __init__(self, config: SmallDecoderConfig) -> None:
        super().__init__()
        self.config = config
        coarse, middle, fine = config.widths
        channels = config.latent_channels * (config.past + 1)
        self.read = nn.Conv2d(channels, coarse, 3, padding=1)
        self.coarse = _blocks(coarse, config.blocks[0], config.groups)
        self.to_middle = nn.Conv2d(coarse, 4 * middle, 3, padding=1)
        self.middle = _blocks(middle, config.blocks[1], config.groups)
        self.to_fine = nn.Conv2d(middle, 4 * FAMILY.time_stride * fine, 3, padding=1)
        # No norm at h/2: the statistics of so many pixels cost as much as a convolution.
        self.fine = _blocks(fine, config.blocks[2], None)
        self.write = nn.Conv2d(fine, 4 * 3, 3, padding=1)

    def forward(self, groups: Tensor) -> Tensor:
        """Decode groups of latents, each alone.

        Args:
            groups: `(n, past + 1, 16, h/8, w/8)`, scaled latents in order; those before the first
                latent of a clip are copies of it.

        Returns:
            `(n, 4, 3, H, W)`, roughly in [0, 1], not clamped; of a clip's first latent only the
            last frame counts.
        """
        count, stride = len(groups), FAMILY.time_stride
        x = self.coarse(self.read(groups.flatten(1, 2)))
        x = self.middle(F.pixel_shuffle(self.to_middle(F.silu(x)), 2))
        x = F.pixel_shuffle(self.to_fine(F.silu(x)), 2)
        x = self.fine(x.unflatten(1, (stride, -1)).flatten(0, 1))
        x = F.pixel_shuffle(self.write(F.silu(x)), 2)
        return x.unflatten(0, (count, stride)) + 0.5  # it starts at grey


class _Block(nn.Module):
    """A residual block; it starts as the identity."""

    def __init__(self, width: int, groups: int | None) -> None:
        super().__init__()
        self.norm = nn.Identity() if groups is None else nn.GroupNorm(groups, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.second(F.silu(self.first(F.silu(self.norm(x)))))
        return x + branch


def _blocks(width: int, count: int, groups: int | None) -> nn.Sequential:
    return nn.Sequential(*(_Block(width, groups) for _ in range(count)))


def latent_group(latents: Tensor, i: int, past: int) -> Tensor:
    """Return latent i and those before it, `(b, past + 1, 16, h/8, w/8)`.

    Args:
        latents: `(b, 16, t, h/8, w/8)`.
        i: Index of the last latent of the group.
        past: Latents before it; where there are none, the first one stands in.
    """
    return torch.stack([latents[:, :, max(i - k, 0)] for k in range(past, -1, -1)], dim=1)


def decode_small(
    decoder: SmallDecoder,
    latents: Tensor,
    frames: slice | None = None,
    *,
    detach_context: bool = False,
    checkpointing: bool = True,
) -> Tensor:
    """Decode scaled latents to frames in [0, 1], as `base_model.networks.magvit.decode` does.

    Args:
        decoder: The small decoder of the VAE.
        latents: `(b, 16, t, h/8, w/8)`.
        frames: Frames to decode, a slice over `range(4 (t - 1) + 1)` with step 1; None decodes all.
        detach_context: Stop the gradient at the latents before the first of these frames.
        checkpointing: Run latent by latent, and recompute each in the backward pass; False runs
            them in one batch and keeps all activations.

    Returns:
        `(b, f, 3, H, W)` in [0, 1], float32 (float64 for float64 weights), differentiable.

    Raises:
        GeneratorError: The slice is empty or has a step other than 1.
    """
    start, stop = frame_window(frames, frame_count(latents.shape[2]))
    first, last = latent_count(start + 1) - 1, latent_count(stop)
    weight = decoder.read.weight
    z = latents.to(weight.device, weight.dtype)
    if detach_context:
        z = torch.cat([z[:, :, :first].detach(), z[:, :, first:]], dim=2)
    groups = [latent_group(z, i, decoder.config.past) for i in range(first, last)]
    pieces: list[Tensor]
    if checkpointing:
        pieces = [
            checkpoint(decoder, group, use_reentrant=False, preserve_rng_state=False)
            if torch.is_grad_enabled()
            else decoder(group)
            for group in groups
        ]
    else:
        pieces = list(decoder(torch.cat(groups)).chunk(len(groups)))
    video = torch.cat(pieces, dim=1)
    video = video.to(torch.promote_types(video.dtype, torch.float32))
    # The first latent has one frame, the last of its four.
    shown = 0 if first == 0 else frame_count(first)
    skipped = FAMILY.time_stride - 1 if first == 0 else 0
    return video[:, skipped + start - shown : skipped + stop - shown].clamp(0, 1)


def vae_fingerprint(vae: Any) -> str:
    """Return the SHA-256 of a VAE's decoder: 64 hexadecimal digits.

    It depends on the values alone, rounded to bfloat16: neither on the layout of the checkpoint nor
    on the dtype in which it is loaded.

    Args:
        vae: An `AutoencoderKLMagvit`.
    """
    digest = hashlib.sha256(f"{vae.config.scaling_factor:.8g}".encode())
    for name, tensor in sorted(_decoder_state(vae)):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        rounded = tensor.detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(rounded.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _decoder_state(vae: Any) -> Iterator[tuple[str, Tensor]]:
    for part in ("decoder", "post_quant_conv"):
        for name, tensor in getattr(vae, part).state_dict().items():
            yield f"{part}.{name}", tensor

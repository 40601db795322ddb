"""The numbers of a model family in one record; EasyAnimateV5.1 is the only family so far.

Everything that the rest of the project takes for granted about the generator, and that a loaded
network cannot be asked for, is read from `FAMILY`. This module imports no torch, so that recipes
and `--help` can use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class ClipSize(NamedTuple):
    """Frames of a clip, its height and its width in pixels."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class ModelFamily:
    """What all checkpoints of a family share.

    Attributes:
        name: Name in messages.
        time_stride: Frames in one latent frame; the first latent frame holds one frame.
        space_stride: Pixels along the side of one latent.
        patch: Latents along the side of one transformer token.
        latent_channels: Channels of the VAE's latents.
        camera_channels: Channels of a camera ray (Plücker coordinates).
        timesteps: Noise levels in training; the network reads `timesteps * sigma`.
        frames_per_second: Frame rate of the training clips, and of the clips that are written.
        clip_size: Default size of the published scripts for text to video and image to video.
        longest_clip: Frames of the longest training clip.
        blocks: Module list of the transformer that offloading and quantisation act on.
        transformer_anchor: A tensor that every transformer of the family has under this name; what
            precedes the name in a file is a prefix.
        vae_anchor: The same for the VAE.
    """

    name: str
    time_stride: int
    space_stride: int
    patch: int
    latent_channels: int
    camera_channels: int
    timesteps: int
    frames_per_second: int
    clip_size: ClipSize
    longest_clip: int
    blocks: str
    transformer_anchor: str
    vae_anchor: str

    @property
    def token_side(self) -> int:
        """Pixels along the side of one token: heights and widths are multiples of it."""
        return self.space_stride * self.patch

    @property
    def block_prefix(self) -> str:
        """Start of the names of all tensors in the transformer's blocks."""
        return f"{self.blocks}."

    def latent_frames(self, frames: int) -> int:
        """Return the latent frames of a clip of `frames` frames, `time_stride * k + 1`."""
        return (frames - 1) // self.time_stride + 1

    def fitting_frames(self, frames: int) -> int:
        """Return the largest number of frames up to `frames` that fills whole latent frames."""
        return max(frames - 1, 0) // self.time_stride * self.time_stride + 1


EASYANIMATE_V5_1 = ModelFamily(
    name="EasyAnimateV5.1",
    time_stride=4,
    space_stride=8,
    patch=2,
    latent_channels=16,
    camera_channels=6,
    timesteps=1000,
    frames_per_second=8,
    clip_size=ClipSize(49, 384, 672),
    longest_clip=49,
    blocks="transformer_blocks",
    transformer_anchor="proj_out.weight",
    vae_anchor="post_quant_conv.weight",
)

FAMILY = EASYANIMATE_V5_1
"""The family of every generator that the project loads."""

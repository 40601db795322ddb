"""Memory that a clip needs: a clip that cannot fit is refused before it is sampled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from base_model.core.family import FAMILY, ClipSize
from base_model.generator import Generator
from base_model.networks.tiled_decode import Tiling
from reward_tuning.errors import TuningError
from reward_tuning.sampling.free_memory import free_memory, gigabytes

DECODED = {1: 11, 2: 60}
"""Feature maps of the decoder's last level that are in memory at least while a latent frame is
decoded, of a picture and of a clip: the tensors alone, as counted on the meta device (11.7, 60.7).
What a kernel takes for itself comes on top; it is not the same on every CPU."""
STATES = 10
"""Copies of all tokens' states that a block needs at least: query, key, value, attention, residual
and the four-fold inner layer, minus the ones freed early."""
CLIPS = 2  # copies of the decoded clip: its windows, and the whole


def check_clip_fits(generator: Generator, size: ClipSize, tiling: Tiling | None) -> None:
    """Refuse a clip that cannot be sampled or decoded here, before hours of sampling.

    The need is a lower bound: what passes may still be too large.

    Args:
        generator: The loaded generator; its weights are no longer free memory.
        size: Size of the clip.
        tiling: Tiling of the decode; None decodes whole frames.

    Raises:
        TuningError: The clip needs more memory than is free.
    """
    frames, height, width = size
    area = height * width
    if tiling is not None:
        area = min(area, (tiling.tile * FAMILY.space_stride) ** 2)
    channels = generator.vae.config.block_out_channels[0]
    maps = DECODED[min(frames, 2)]
    decode = maps * area * channels * generator.vae.dtype.itemsize
    decode += CLIPS * frames * 3 * height * width * 4
    config = generator.transformer.config
    tokens = (
        FAMILY.latent_frames(frames)
        * height
        * width
        // (FAMILY.space_stride * config.patch_size) ** 2
    )
    states = config.num_attention_heads * config.attention_head_dim
    sample = STATES * tokens * states * generator.dtype.itemsize
    free = free_memory(generator.device)
    what, needed = max(("sampled", sample), ("decoded", decode), key=lambda one: one[1])
    if needed > free:
        tiles = ", or --tiled-decode" if what == "decoded" and tiling is None else ""
        raise TuningError(
            f"a clip of {frames} frames of {height} x {width} needs at least {gigabytes(needed)} "
            f"to be {what}, and {gigabytes(free)} of {generator.device} are free; use fewer "
            f"or smaller frames{tiles}"
        )


@contextmanager
def reported_out_of_memory(what: str) -> Iterator[None]:
    """Turn a failed allocation within the context into a message.

    Raises:
        TuningError: An allocation failed.
    """
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        if not (isinstance(error, torch.OutOfMemoryError) or "allocate memory" in first):
            raise
        raise TuningError(
            f"{what} does not fit into memory ({first[:200]}); use fewer or smaller frames, "
            "--memory offload or block-offload, or --tiled-decode"
        ) from error

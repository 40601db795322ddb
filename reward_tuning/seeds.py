"""Every random draw of a run, by name.

A draw depends on the run's seed and on what it is for, never on what was drawn before it, so a
resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed of 63 bits for one purpose.

    Args:
        seed: Of the run.
        *purpose: Such as `"noise", 17`: words and numbers that name the draw.
    """
    name = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def derive_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))

"""Seeds of all random draws of a run, derived from names.

A draw depends on the run's seed and on its purpose, never on earlier draws, so a resumed run draws
what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed of 63 bits for one purpose.

    Args:
        seed: Seed of the run.
        *purpose: Words and numbers that name the draw, such as `"noise", 17`.
    """
    name = "/".join(map(str, (seed, *purpose)))
    # 63 bits, for torch takes seeds as signed 64-bit integers. Python's hash() differs by process.
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def derive_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose, which draws the same on every device."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))

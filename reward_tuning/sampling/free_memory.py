"""Free memory of a device, within the limits of a container."""

from __future__ import annotations

from pathlib import Path

import torch

from reward_tuning.sampling.cgroups import memory_limit

ROOT = Path("/")
"""Folder that stands for the root of the file system; tests replace it."""


def free_memory(device: torch.device) -> int:
    """Return the bytes that can be allocated on a device, including PyTorch's unused cache."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    import psutil

    free = int(psutil.virtual_memory().available)
    limit = memory_limit(ROOT)
    return free if limit is None else min(free, limit.free)


def gigabytes(count: float) -> str:
    """Format a number of bytes as GB or MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"

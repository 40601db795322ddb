"""Free memory of a device, within the limits of a container."""

from __future__ import annotations

from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")
"""Limits of a container (cgroup v2), which may be below the memory of the machine."""


def free_memory(device: torch.device) -> int:
    """Return the bytes that can be allocated on a device, including PyTorch's unused cache."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        most = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        about = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return free  # no container, or one of another kind
    if most == "max":
        return free
    return min(free, int(most) - used + int(about.get("inactive_file", 0)))


def gigabytes(count: float) -> str:
    """Format a number of bytes as GB or MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"

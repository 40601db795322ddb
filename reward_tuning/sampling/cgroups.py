"""The limits of a container or a batch system: cgroups of both versions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

UNLIMITED = 1 << 60
"""Version 1 writes a number above this for no limit."""


class MemoryLimit(NamedTuple):
    """Bytes that a cgroup may use, and those that it can still take."""

    most: int
    free: int


def core_quota(root: Path = Path("/")) -> float | None:
    """Return the processor time that the process may use, in cores; None for no limit.

    Args:
        root: Folder that stands for the root of the file system.
    """
    found = []
    for folder in _folders(root, "cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                found.append(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            quota_us = int((folder / "cpu.cfs_quota_us").read_text())
            if quota_us > 0:
                found.append(quota_us / int((folder / "cpu.cfs_period_us").read_text()))
    return min(found, default=None)


def memory_limit(root: Path = Path("/")) -> MemoryLimit | None:
    """Return the limit that leaves the least memory; None for none.

    File pages that the kernel gives back count as free.

    Args:
        root: Folder that stands for the root of the file system.
    """
    names = (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    found = []
    for folder in _folders(root, "memory"):
        for most, used, cached in names:
            with contextlib.suppress(OSError, ValueError):
                limit = int((folder / most).read_text())  # "max" is no number, and no limit
                if limit < UNLIMITED:
                    free = limit - int((folder / used).read_text()) + _stat(folder, cached)
                    found.append(MemoryLimit(limit, free))
    return min(found, key=lambda one: one.free, default=None)


def _stat(folder: Path, name: str) -> int:
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
        return int(dict(line.split() for line in lines).get(name, 0))
    except (OSError, ValueError):
        return 0


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the cgroups of this process for one controller, up to the topmost."""
    mounts, own_groups = root / "sys/fs/cgroup", root / "proc/self/cgroup"
    if not own_groups.exists():  # a system without cgroups
        return
    for line in own_groups.read_text().splitlines():
        _, names, path = line.split(":", 2)
        if not names:  # version 2, alone or beside version 1
            places = [mounts, mounts / "unified"]
        elif controller in names.split(","):
            places = [mounts / name for name in dict.fromkeys((names, controller))]
        else:
            continue
        own = PurePosixPath(path.lstrip("/"))
        if ".." in own.parts:  # seen from inside a namespace: only the topmost is visible
            own = PurePosixPath()
        for place in places:
            yield from (place / part for part in (own, *own.parents))

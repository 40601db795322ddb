"""Memory of a process on the CPU before it loads anything."""

from __future__ import annotations

import psutil

LOADED = 90_000_000
"""Bytes that a run adds to its imports before the first step, weights left out: modules that are
imported late, tokenizers, prompts, trackers. Measured on the embedded recipes."""


def imported_bytes() -> int:
    """Return the bytes of this process, which has imported what a run imports, and its start."""
    return psutil.Process().memory_info().rss + LOADED

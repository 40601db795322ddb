"""Restore the global state that foreign code may change."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def settings_restored() -> Iterator[None]:
    """Restore torch's default dtype and device, gradient mode and deterministic mode.

    A float64 default would change every later tensor; a disabled gradient mode would train nothing.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    gradient = torch.is_grad_enabled()
    strict = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        torch.set_grad_enabled(gradient)
        torch.use_deterministic_algorithms(strict, warn_only=lenient)


@contextmanager
def random_state_restored() -> Iterator[None]:
    """Restore the global random states of Python, NumPy (if it is imported) and torch."""
    numpy = sys.modules.get("numpy")
    python, arrays = random.getstate(), numpy.random.get_state() if numpy else None
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        if numpy:
            numpy.random.set_state(arrays)

"""Devices that a recipe names for a part of its work, beside the run's own."""

from __future__ import annotations

import os

import torch

from reward_tuning.errors import TuningError


def placed(name: str | None, device: torch.device) -> torch.device:
    """Return the device of that name, and the run's where there is none."""
    return device if name is None else torch.device(name)


def require_device(key: str, name: str | None) -> None:
    """Check that this machine has a device.

    Args:
        key: Of the recipe, for the message.
        name: Its value; None for the run's device.

    Raises:
        TuningError: There is no such device, or several processes would share it.
    """
    if name is None or name == "cpu":
        return
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes > 1 and torch.device(name).index is not None:
        raise TuningError(
            f"{key} is {name}, where each of the {processes} processes on this machine would "
            "put it. Leave the key out, set it to cpu, or start one process"
        )
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (torch.device(name).index or 0) >= cards:
        have = ", ".join(["cpu", *(f"cuda:{number}" for number in range(cards))])
        raise TuningError(f"{key} is {name}; this machine has {have}. Name one of these")

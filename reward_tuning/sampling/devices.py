"""Devices that a recipe names for a part of its work, beside the run's own."""

from __future__ import annotations

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
        TuningError: There is no such device.
    """
    if name is None or name == "cpu":
        return
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (torch.device(name).index or 0) >= cards:
        have = ", ".join(["cpu", *(f"cuda:{number}" for number in range(cards))])
        raise TuningError(f"{key} is {name}; this machine has {have}. Name one of these")

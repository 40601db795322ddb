"""A machine without problems, for the tests that are about what a recipe needs."""

from __future__ import annotations

import pytest

from reward_tuning.doctor import devices, disks, machine
from reward_tuning.doctor.facts import Fact


def sound_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let disks have space, the memory suffice, and no card be of a kind unknown to PyTorch."""
    monkeypatch.setattr(
        disks, "disk_facts", lambda places: [Fact(disks.GROUP, at.name, "free") for at in places]
    )
    monkeypatch.setattr(machine, "total_memory", lambda: 64_000_000_000)
    monkeypatch.setattr(
        devices, "device_facts", lambda torch, driver: [Fact(devices.GROUP, "cuda", "none")]
    )

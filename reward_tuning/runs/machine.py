"""The machine of a run: one row of machine.jsonl for each time that it was started."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from reward_tuning.files.atomic_write import not_written

if TYPE_CHECKING:
    import torch

MACHINE = "machine.jsonl"


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Return what can decide how long a run takes; no name of the machine or its user.

    Args:
        device: Device that the run uses.

    Returns:
        `{"device", "gpu", "cores", "memory", "system", "python", "begun"}`: memory in bytes, the
        time in UTC to the second.
    """
    gpu = device.type == "cuda"
    return {
        "device": _gpu_name(device) if gpu else device.type,
        "gpu": gpu,
        "cores": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "begun": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }


def _gpu_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device)


def record_start(
    folder: Path,
    device: torch.device,
    *,
    step: int,
    processes: int,
    memory_keys: Mapping[str, Any],
) -> None:
    """Append a row to machine.jsonl.

    Args:
        folder: The run folder.
        device: Device that the run uses.
        step: Optimiser steps done; above 0 for a resume.
        processes: Processes of the run.
        memory_keys: Keys of the recipe that decide how much memory is used, which a resume may
            change.

    Raises:
        TuningError: The disk is full.
    """
    row = {"step": step, "processes": processes, **machine_facts(device), "recipe": memory_keys}
    path = folder / MACHINE
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise not_written(path, error) from error

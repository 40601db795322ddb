"""The command that resumes a run, in as many processes as it has. Imports no torch."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables in which launchers state the number of processes, torchrun's first: a batch system
around it may state another number in its own."""


def resume_command(folder: Path, processes: int | None = None) -> str:
    """Return the command that resumes a run.

    Args:
        folder: The run folder.
        processes: Processes of the run, on one machine; None for those that this one belongs to.
    """
    place = shlex.quote(str(folder))
    here = processes or number_in(os.environ, "LOCAL_WORLD_SIZE")
    processes = processes or world_size(os.environ) or 1
    if processes == 1:
        return f"reward-tuning resume {place}"
    if here == processes:
        return f"torchrun --nproc_per_node {processes} -m reward_tuning.cli resume {place}"
    return f"-m reward_tuning.cli resume {place}, started in {processes} processes as the run was"


def world_size(environment: Mapping[str, str]) -> int | None:
    """Return the number of processes that the launcher states; None where it states none."""
    for name in SIZES:
        if name in environment:
            return number_in(environment, name)
    return None


def number_in(environment: Mapping[str, str], name: str) -> int:
    """Return the number in a variable; 1 where there is none."""
    value = environment.get(name, "")
    return int(value) if value.isdecimal() else 1

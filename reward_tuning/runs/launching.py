"""Join the processes that a launcher started, and refuse what the launcher asks for in vain."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from datetime import timedelta

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from reward_tuning.errors import TuningError
from reward_tuning.runs.resume_command import number_in, world_size

NOT_BUILT = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}
LONGEST_WAIT = timedelta(hours=6)
"""Longest wait of one process for another: the main process may write and measure for hours.

A process that has ended is noticed at once all the same (`reward_tuning.runs.peers`)."""


def join_processes() -> Accelerator:
    """Join the processes that share a run, as `torchrun` or `accelerate launch` started them.

    Raises:
        TuningError: The launcher asks for something that would be ignored, or started fewer
            processes than it was asked for.
    """
    check_launcher(os.environ)
    several = (world_size(os.environ) or 1) > 1
    if several and torch.cuda.is_available():
        here, devices = number_in(os.environ, "LOCAL_WORLD_SIZE"), torch.cuda.device_count()
        if here > devices and os.environ.get("ACCELERATE_USE_CPU", "").lower() != "true":
            raise TuningError(
                f"{here} processes were started on this machine, which has {devices} GPUs; start "
                f"at most {devices}"
            )
    accelerator = Accelerator(
        mixed_precision="no",
        # Without it, and without a GPU, each process would take itself for the only one.
        cpu=several and not torch.accelerator.is_available(),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
    )
    asked = requested_processes(os.environ)
    if asked is not None and asked != accelerator.num_processes:
        wanted = str(asked) if asked else "several"
        again = f"torchrun --nproc_per_node {asked or 'N'} -m reward_tuning.cli ..."
        raise TuningError(
            f"the launcher was asked for {wanted} processes and started "
            f"{accelerator.num_processes}, so a step would draw fewer clips than intended. Start "
            f"with `{again}`, which also works on CPUs, or ask for one process"
        )
    return accelerator


def check_launcher(environment: Mapping[str, str]) -> None:
    """Refuse settings of `accelerate launch` that have no effect here.

    Args:
        environment: Environment variables of the process.

    Raises:
        TuningError: FSDP, DeepSpeed or another kind of sharding is requested.
    """
    for name, what in NOT_BUILT.items():
        if environment.get(name, "").lower() in ("true", "1", "yes"):
            raise TuningError(
                f"the launcher asks for {what}, which is not supported: nothing would be sharded. "
                "Choose plain multi-GPU in `accelerate config`, or start with torchrun, and set "
                "generator.memory=sharded in the recipe to spread the frozen weights (FSDP2)"
            )
    backend = environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if backend != "no":
        raise TuningError(
            f"the launcher asks for the dynamo backend {backend}, which would be ignored; remove "
            "it, and set train.compile=true in the recipe"
        )


def ignored_settings(environment: Mapping[str, str]) -> str:
    """Return a note on a setting of the launcher that the recipe overrides; empty for none."""
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision == "no":
        return ""
    return (
        f"mixed_precision {precision} of the launcher is ignored: the recipe's generator.dtype "
        "decides"
    )


def requested_processes(environment: Mapping[str, str]) -> int | None:
    """Return how many processes the launcher was asked to start.

    `accelerate launch --cpu --num_processes 2` starts one process without a warning, and sets no
    WORLD_SIZE; but it sets the address at which two would meet
    (`findings/accelerate-launch-cpu-one-process.sh`).

    Args:
        environment: Environment variables of the process.

    Returns:
        The number; 0 for several of unknown number; None where it is not stated.
    """
    if size := world_size(environment):
        return size
    if "ACCELERATE_DYNAMO_BACKEND" not in environment or "MASTER_PORT" not in environment:
        return None
    try:
        parent = psutil.Process().parent()
        if parent is None or "MASTER_PORT" in parent.environ():
            return None
        return _requested_in(parent.cmdline())
    except psutil.Error:
        return None


def _requested_in(command: list[str]) -> int:
    """Return the number in the launcher's command; 0 where only its config file has it."""
    for i, word in enumerate(command):
        name, _, value = word.partition("=")
        if name in ("--num_processes", "--num-processes"):
            value = value or "".join(command[i + 1 : i + 2])
            return int(value) if value.isdecimal() else 0
    return 0


def is_main_process() -> bool:
    """Return whether this process is the only one of its run, or the one that writes."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return True
    return distributed.get_rank() == 0


def leave_at_exit() -> None:
    """Leave the other processes in order when the interpreter ends, if nobody has by then.

    Threads of a live process group may outlive the interpreter, whose end then aborts the process
    ("terminate called without an active exception"): 5 of 100 processes of gloo, on a busy machine.
    """
    atexit.unregister(leave_processes)
    atexit.register(leave_processes)


def leave_processes() -> None:
    """Leave the other processes in order; do nothing where there are none."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

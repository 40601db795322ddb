"""Settings of a launcher: what it was asked for, what is refused, what is ignored with a note."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.runs.launching import (
    check_launcher,
    ignored_settings,
    is_main_process,
    leave_processes,
    requested_processes,
)
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.tiny_run import tiny_recipe, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def test_processes_asked_for() -> None:
    assert requested_processes({}) is None
    assert requested_processes({"WORLD_SIZE": "4", "RANK": "0"}) == 4
    assert requested_processes({"OMPI_COMM_WORLD_SIZE": "3"}) == 3
    assert requested_processes({"WORLD_SIZE": "2", "PMI_SIZE": "8"}) == 2
    # an address that the shell set, as batch systems do, is no sign of several processes
    assert requested_processes({"MASTER_PORT": "29500"}) is None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ACCELERATE_USE_FSDP", "FSDP, which is not supported: nothing would be sharded"),
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "parallelism config"),
    ],
)
def test_ways_to_share_that_are_not_built_are_refused(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    check_launcher({name: "false", "ACCELERATE_DYNAMO_BACKEND": "NO"})
    monkeypatch.setenv(name, "true")
    with pytest.raises(TuningError, match=f"{told}.*generator.memory=sharded"):
        run(tiny_recipe(world, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_settings_of_the_launcher_that_the_recipe_decides() -> None:
    with pytest.raises(TuningError, match=r"train\.compile"):
        check_launcher({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"})
    assert ignored_settings({"ACCELERATE_MIXED_PRECISION": "no"}) == ""
    assert "generator.dtype" in ignored_settings({"ACCELERATE_MIXED_PRECISION": "bf16"})


def test_a_launcher_that_hides_its_number_is_asked_by_its_command(tmp_path: Path) -> None:
    """As `accelerate launch --cpu` does; the parent must be another process."""
    code = (
        "import os; from reward_tuning.runs.launching import requested_processes; "
        "print(requested_processes(os.environ))"
    )
    launch = tmp_path / "launch.py"
    launch.write_text(
        "import os, subprocess, sys\n"
        "variables = {'ACCELERATE_DYNAMO_BACKEND': 'no', 'MASTER_PORT': '29500'}\n"
        f"subprocess.run([sys.executable, '-c', {code!r}], env={{**os.environ, **variables}})\n"
    )
    names = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "MASTER_PORT")
    clean = {k: v for k, v in os.environ.items() if k not in names}
    command = [sys.executable, str(launch), "--num_processes", "3"]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True)
    assert done.stdout == "3\n", done.stderr


def test_a_single_process_is_the_main_one_and_leaves_nobody() -> None:
    assert is_main_process()
    leave_processes()


ALONE = """
import atexit
from datetime import timedelta
import torch
from reward_tuning.runs.launching import leave_at_exit

torch.distributed.init_process_group(
    "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=60)
)
atexit.register(lambda: print(torch.distributed.is_initialized()))  # runs last
leave_at_exit()
leave_at_exit()
"""


def test_a_program_leaves_when_it_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr

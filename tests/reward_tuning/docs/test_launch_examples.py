"""The examples of docs/examples that start several processes: their syntax, and their commands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.run import get_args_parser

from reward_tuning.cli import VERBS
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.runs.launching import check_launcher

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
SLURM = (EXAMPLES / "slurm.sh").read_text(encoding="utf-8")
SKY: dict[str, Any] = read_yaml((EXAMPLES / "skypilot.yaml").read_text(encoding="utf-8"))
BASH = shutil.which("bash")

STUBS = """
torchrun() { printf '%s\\n' "$@"; }
srun() { [ "$1" = --cpus-per-task=32 ] && "${@:2}"; }
scontrol() { echo node-1; echo node-2; }
"""
PLACE = {
    "SLURM_JOB_ID": "7",
    "SLURM_NNODES": "2",
    "SLURM_CPUS_PER_TASK": "32",
    "SLURM_JOB_NODELIST": "node-[1-2]",
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NUM_GPUS_PER_NODE": "8",
    "SKYPILOT_NODE_RANK": "1",
    "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    "RECIPE": "mine.yaml",
    "PATH": "/usr/bin:/bin",
}


def words(script: str, *arguments: str) -> list[str]:
    """What the script gives to torchrun, of which a stub takes the place."""
    assert BASH is not None
    done = subprocess.run(
        [BASH, "-euc", STUBS + script, "script", *arguments],
        env=PLACE,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()


def started(script: str, *arguments: str) -> list[str]:
    """The command that torchrun starts in each process, on 2 machines with 8 GPUs."""
    parsed = get_args_parser().parse_args(words(script, *arguments))
    assert (parsed.nnodes, parsed.nproc_per_node) == ("2", "8")
    assert parsed.module
    assert parsed.training_script == "reward_tuning.cli"
    assert parsed.training_script_args[0] in {verb.__name__ for verb in VERBS}
    found: list[str] = parsed.training_script_args
    return found


needs_bash = pytest.mark.skipif(
    sys.platform == "win32" or BASH is None, reason="the examples are bash scripts"
)


@needs_bash
def test_slurm_runs_first_and_resumes_after_a_requeue(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert started(SLURM, "mine.yaml", str(run)) == ["run", "mine.yaml", f"output={run}"]
    run.mkdir()
    (run / "recipe.yaml").touch()
    assert started(SLURM, "mine.yaml", str(run)) == ["resume", str(run)]
    assert "#SBATCH --requeue" in SLURM


@needs_bash
def test_slurm_stops_the_run_and_requeues_the_job(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").touch()
    stubs = """
torchrun() { kill -USR1 $$; until [ -e "$run/control/stop" ]; do sleep 0.1; done; echo stopped; }
srun() { [ "$1" = --cpus-per-task=32 ] && "${@:2}"; }
scontrol() { echo "$@"; }
"""
    assert BASH is not None
    done = subprocess.run(
        [BASH, "-c", stubs + SLURM, "script", "mine.yaml", str(run)],
        env=PLACE,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["stopped", "requeue 7"], done.stderr
    assert re.search(r"^#SBATCH --signal=B:USR1@\d+$", SLURM, flags=re.MULTILINE)


@needs_bash
def test_slurm_requeues_a_job_that_the_signal_reaches_before_its_start(tmp_path: Path) -> None:
    stubs = """
scontrol() { case $1 in show) kill -USR1 $$; echo node-1;; *) echo "$@";; esac; }
srun() { echo started; }
"""
    assert BASH is not None
    done = subprocess.run(
        [BASH, "-c", stubs + SLURM, "script", "mine.yaml", str(tmp_path / "run")],
        env=PLACE,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("requeue 7\n", "")


@needs_bash
def test_skypilot_runs_first_and_resumes_on_the_next_machine(tmp_path: Path) -> None:
    script = SKY["run"].replace("/runs/$RECIPE", f"{tmp_path}/$RECIPE")
    run = tmp_path / "mine.yaml"
    assert started(script) == ["run", "mine.yaml", f"output={run}"]
    run.mkdir()
    (run / "recipe.yaml").touch()
    assert started(script) == ["resume", str(run)]
    assert SKY["resources"]["use_spot"] is True
    assert SKY["workdir"] == "."


def test_accelerate_asks_for_nothing_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    config = str(EXAMPLES / "accelerate.yaml")
    assert load_config_from_file(config).num_processes == 8
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    given = ["--config_file", config, "-m", "reward_tuning.cli", "run", "mine.yaml"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(given))
    assert (arguments.training_script, arguments.training_script_args) == (
        "reward_tuning.cli",
        ["run", "mine.yaml"],
    )
    check_launcher(prepare_multi_gpu_env(arguments))

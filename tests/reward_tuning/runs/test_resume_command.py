"""The command that resumes a run in as many processes as it has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reward_tuning.runs.resume_command import number_in, resume_command, world_size

RESUME = "-m reward_tuning.cli resume 'a run'"


@pytest.mark.parametrize(
    ("environment", "command"),
    [
        ({}, "reward-tuning resume 'a run'"),
        ({"WORLD_SIZE": "1"}, "reward-tuning resume 'a run'"),
        ({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8"}, f"torchrun --nproc_per_node 8 {RESUME}"),
        (
            {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"},
            f"{RESUME}, started in 16 processes as the run was",
        ),
    ],
)
def test_of_the_processes_that_this_one_belongs_to(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], command: str
) -> None:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert resume_command(Path("a run")) == command


def test_of_a_number_of_processes() -> None:
    assert resume_command(Path("a run"), 1) == "reward-tuning resume 'a run'"
    assert resume_command(Path("a run"), 2) == f"torchrun --nproc_per_node 2 {RESUME}"


def test_the_launcher_precedes_the_batch_system_around_it() -> None:
    assert world_size({}) is None
    assert world_size({"PMI_SIZE": "8"}) == 8
    assert world_size({"PMI_SIZE": "8", "WORLD_SIZE": "2"}) == 2
    assert number_in({"WORLD_SIZE": "two"}, "WORLD_SIZE") == 1


def test_it_imports_no_torch() -> None:
    """`show` prints the command, and starts in a fraction of the time that torch takes."""
    code = (
        "import sys, reward_tuning.runs.resume_command, reward_tuning.runs.folder; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

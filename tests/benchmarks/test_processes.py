"""Several processes make the adapter of one, for each method, with and without shared weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.processes import ARMS, SHARDED, WHOLE, Comparison, Job, distance, made_by

TIMEOUT = 600.0
BAR = 1e-6
"""Of the adapter's norm; the largest distance measured is 1.2e-7 (docs/performance.md)."""
on_cpus = pytest.mark.skipif(
    sys.platform == "win32" or torch.cuda.is_available(), reason="processes on the CPU"
)


def write_adapter(folder: Path, up: float) -> Path:
    (folder / "lora").mkdir(parents=True)
    state = {"a.lora_A.weight": torch.ones(3, 4), "a.lora_B.weight": torch.full((4, 3), up)}
    save_file(state, folder / "lora" / "adapter_model.safetensors")
    return folder


def test_distance_is_relative_to_what_was_learnt(tmp_path: Path) -> None:
    one, other = write_adapter(tmp_path / "one", 2.0), write_adapter(tmp_path / "other", 2.5)
    assert distance(one, other)["learnt"] == pytest.approx(0.25)
    assert distance(one, other)["adapter"] == pytest.approx(0.5 / 5**0.5)
    with pytest.raises(AssertionError, match="learnt nothing"):
        distance(write_adapter(tmp_path / "nothing", 0.0), other)


def test_one_process_draws_as_much_as_several() -> None:
    assert ARMS["drtune"].batches(4) == ("train.batch_size=4", "train.gradient_accumulation=2")
    assert ARMS["finetune"].batches(4) == ("train.batch_size=1", "train.gradient_accumulation=8")


@pytest.mark.slow
def test_a_process_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)exit code 1: .*nowhere\.yaml"):
        made_by(1, [Job(str(tmp_path / "nowhere.yaml"), ())])


def check(compared: Comparison, processes: int, name: str) -> None:
    for arm, found in compared.distances(processes, name).items():
        assert found["adapter"] < BAR, (arm, found)
        assert found["learnt"] < 10 * BAR, (arm, found)


@on_cpus
@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    # Two of the others are drtune, and tests/reward_tuning/runs/test_processes.py has draft_k.
    arms = [arm for arm in ARMS if arm not in ("drtune", "draft_k")]
    compared = Comparison(tmp_path, arms, steps=2, timeout=TIMEOUT)
    compared.one_process(2)
    compared.processes(2)
    check(compared, 2, WHOLE)
    compared.arms = ["drawn", "leapalign", "finetune", "distil"]
    compared.processes(2, sharded=True)
    check(compared, 2, SHARDED)
    for arm in compared.arms:  # to the bit: sharing weights changes no sum
        one, other = (
            load_file(tmp_path / f"{arm}-{name}-2" / "lora" / "adapter_model.safetensors")
            for name in (WHOLE, SHARDED)
        )
        assert all(torch.equal(one[key], other[key]) for key in one), arm


@on_cpus
@pytest.mark.slow
def test_four_processes_are_one_with_four_times_the_batch(tmp_path: Path) -> None:
    compared = Comparison(tmp_path, ["drtune"], steps=2, timeout=TIMEOUT)
    compared.one_process(4)
    compared.processes(4, sharded=True)
    check(compared, 4, SHARDED)

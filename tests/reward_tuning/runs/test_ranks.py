"""Two processes share a step: the same adapter as one process with twice the batch."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from reward_tuning.runs.ranks import all_agree
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or torch.cuda.is_available(), reason="runs are forked, on the CPU"
)
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.reward_tuning.runs.test_ranks"])
OVERRIDES = (
    "train.steps=3",
    "method={kind: draft_k, active_steps: 2}",
    "evaluation.seeds=1",
    "evaluation.batch_size=2",
    "train.replay={weight: 0.2, clips: 5}",
    "train.updates_per_rollout=2",
)


def train(world: Path, output: Path, rank: int, ranks: int, port: int, batch: int) -> None:
    torch.set_num_threads(1)
    if ranks > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(ranks),
            LOCAL_WORLD_SIZE=str(ranks),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            ACCELERATE_USE_CPU="true",
        )
    run(tiny_recipe(world, output, f"train.batch_size={batch}", *OVERRIDES))


def run_on(world: Path, output: Path, ranks: int, batch: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        FORK.Process(target=train, args=(world, output, rank, ranks, port, batch))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(600)
        assert [process.exitcode for process in processes] == [0] * ranks
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cache"))
    world = tmp_path / "world"
    world.mkdir()
    write_world(world)
    run_on(world, tmp_path / "one", 1, 4)
    run_on(world, tmp_path / "two", 2, 2)
    one, two = (
        load_file(tmp_path / name / "checkpoints" / "step-000003" / "adapter.safetensors")
        for name in ("one", "two")
    )
    start = load_file(tmp_path / "one" / "checkpoints" / "step-000002" / "adapter.safetensors")
    gap = torch.stack([(one[name] - two[name]).norm() for name in one]).norm()
    moved = torch.stack([(one[name] - start[name]).norm() for name in one]).norm()
    assert float(gap / moved) < 0.02
    results = [
        json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("one", "two")
    ]
    assert results[1]["base"] == pytest.approx(results[0]["base"], abs=1e-5)
    assert results[1]["tuned"] == pytest.approx(results[0]["tuned"], abs=1e-4)
    kept = [(tmp_path / name / "replay.safetensors").read_bytes() for name in ("one", "two")]
    assert kept[0] == kept[1]
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert [row["step"] for row in rows[1]] == [1, 2, 3]
    for a, b in zip(*rows, strict=True):
        assert a["further"]["updates"] == b["further"]["updates"] == 1
        # Over the clips of a batch, and the largest of the batches: halves reach further.
        whole, halves = (row["further"]["rerun_error"] for row in (a, b))
        assert 0.99 * whole < halves < 1.5 * whole
        assert b["replay"] == pytest.approx(a["replay"], rel=1e-3)
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-4)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-2)


def test_one_that_disagrees_decides_for_all() -> None:
    def told(mine: bool, *others: bool) -> bool:
        def gather(own: torch.Tensor) -> torch.Tensor:
            return torch.cat([own, torch.tensor(others, dtype=own.dtype)])

        accelerator: Any = SimpleNamespace(
            num_processes=1 + len(others), device=torch.device("cpu"), gather=gather
        )
        return all_agree(mine, accelerator)

    assert told(True)
    assert not told(False)
    assert told(True, True)
    assert not told(True, False)
    assert not told(False, True)

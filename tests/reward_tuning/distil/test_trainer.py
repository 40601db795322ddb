"""Whole distillations on small random weights and real files."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from reward_tuning.distil.folder import DistilFolder
from reward_tuning.distil.parts import load_distil_parts
from reward_tuning.distil.trainer import distil, distil_step
from reward_tuning.lora.export import import_adapter
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs.training_state import initial_state
from tests.reward_tuning.distil.few_steps import small_recipe
from tests.reward_tuning.signalled import stopped_by
from tests.reward_tuning.tiny_run import write_world
from tests.reward_tuning.tiny_transformer import tiny_transformer

pytestmark = pytest.mark.slow


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def whole_run(world: Path) -> Path:
    distil(small_recipe(world, world / "whole"))
    return world / "whole"


def rows(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(one).items() if k not in ("seconds", "memory")}
        for one in lines
    ]


def stop_after(step: int, phase: str) -> ProgressFn:
    def progress(event: ProgressEvent) -> None:
        if (event.stage, event.done, event.phase) == ("training", step, phase):
            raise StoppedError

    return progress


def test_a_stopped_run_ends_in_the_bytes_of_one_that_was_not(
    world: Path, whole_run: Path, tmp_path: Path
) -> None:
    recipe = small_recipe(world, tmp_path / "run")
    with pytest.raises(StoppedError):
        distil(recipe, progress=stop_after(3, "update"))
    assert not (tmp_path / "run" / "evaluation.json").exists()
    distil(recipe, resume=True)
    for name in ("adapter_model.safetensors", "original.safetensors"):
        file = Path("lora") / name
        assert (tmp_path / "run" / file).read_bytes() == (whole_run / file).read_bytes()
    assert rows(tmp_path / "run") == rows(whole_run)
    numbers = [
        json.loads((one / "evaluation.json").read_text()) for one in (tmp_path / "run", whole_run)
    ]
    assert numbers[0] == numbers[1]


def test_a_signal_stops_after_the_last_step_made(
    world: Path, whole_run: Path, tmp_path: Path
) -> None:
    recipe = small_recipe(world, tmp_path / "run", "train.checkpoint_every=4")
    stop = stopped_by(
        signal.SIGTERM,
        ("training", 1, "gradient"),
        tmp_path / "run",
        lambda progress: distil(recipe, progress=progress),
    )
    assert stop.exit_code == 143
    assert "stopped after step 1 of 4, as SIGTERM asked; resume with: " in stop.message()
    assert [one.name for one in (tmp_path / "run/checkpoints").iterdir()] == ["step-000001"]
    distil(recipe, resume=True)
    found, expected = (
        load_file(folder / "lora/adapter_model.safetensors")
        for folder in (tmp_path / "run", whole_run)
    )
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_row_of_a_step_has_the_loss_of_each_phase(whole_run: Path) -> None:
    for row in rows(whole_run):
        by_phase = row["loss_by_phase"]
        assert list(by_phase) == ["1", "2"]
        assert row["loss"] == pytest.approx(sum(by_phase.values()) / 2)


def test_the_error_falls(world: Path) -> None:
    recipe = small_recipe(world, world / "run", "train.ema_decay=null")
    parts = load_distil_parts(recipe, torch.device("cpu"), 5, silent)
    state = initial_state(recipe.train, parts.trained, ())
    processes = Accelerator(cpu=True)
    losses = [distil_step(recipe, parts, state, processes)["loss"] for _ in range(16)]
    assert sum(losses[-3:]) < 0.75 * sum(losses[:3])
    assert state.position == 32


def test_the_exported_lora_is_the_moving_average(whole_run: Path) -> None:
    weights = import_adapter(whole_run / "lora", tiny_transformer())
    assert weights.rank == 2
    assert any(bool(up.any()) for _, up in weights.state.values())


def test_a_lora_stays_under_the_trained_one(world: Path, whole_run: Path, tmp_path: Path) -> None:
    """The teacher is the generator with it, and so are all sides."""
    under = (f"generator.adapter={whole_run}", "train.steps=1")
    done = distil(small_recipe(world, tmp_path / "run", *under))
    plain = json.loads((whole_run / "evaluation.json").read_text())["base"]
    assert done.evaluation["base"]["clip_held_out"] != plain["clip_held_out"]
    assert "generator.adapter" in DistilFolder(tmp_path / "run").initial_fingerprints()

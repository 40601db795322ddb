"""Whole distillations on small random weights and real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from reward_tuning.distil.trainer import distil
from reward_tuning.lora.export import import_adapter
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.report.evaluations import read_evaluation
from tests.reward_tuning.distil.few_steps import small_recipe
from tests.reward_tuning.tiny_run import write_world
from tests.reward_tuning.tiny_transformer import tiny_transformer


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


@pytest.mark.parametrize(("step", "phase"), [(1, "gradient"), (3, "update")])
def test_a_stopped_run_ends_in_the_bytes_of_one_that_was_not(
    world: Path, whole_run: Path, tmp_path: Path, step: int, phase: str
) -> None:
    recipe = small_recipe(world, tmp_path / "run")
    with pytest.raises(StoppedError):
        distil(recipe, progress=stop_after(step, phase))
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


def test_the_row_of_a_step_has_the_loss_of_each_phase(whole_run: Path) -> None:
    for row in rows(whole_run):
        by_phase = row["loss_by_phase"]
        assert list(by_phase) == ["1", "2"]
        assert row["loss"] == pytest.approx(sum(by_phase.values()) / 2)


def test_the_error_falls(world: Path, tmp_path: Path) -> None:
    overrides = ("train.steps=25", "train.ema_decay=null", "evaluation.few_steps=false")
    distil(small_recipe(world, tmp_path / "run", *overrides))
    losses = [row["loss"] for row in rows(tmp_path / "run")]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_sides_are_the_guided_base_and_the_student(whole_run: Path) -> None:
    found = read_evaluation(whole_run)
    assert found is not None
    sides = [(one.name, one.steps, one.guidance_scale, one.strength) for one in found.sides]
    assert sides == [
        ("base", 5, 3.0, 0.0),
        ("tuned", 3, 1.0, 1.0),
        ("base, 3 guided steps", 3, 3.0, 0.0),
        ("base, 3 steps", 3, 1.0, 0.0),
    ]
    assert (found.trained_on, found.never_trained_on) == ((), ("clip_held_out",))
    assert found.primary == "clip_held_out"
    assert (whole_run / "report.html").is_file()
    assert len(list((whole_run / "evaluation").rglob("*.mp4"))) == 4 * 3


def test_the_exported_lora_is_the_moving_average(whole_run: Path) -> None:
    weights = import_adapter(whole_run / "lora", tiny_transformer())
    assert weights.rank == 2
    assert any(bool(up.any()) for _, up in weights.state.values())


def test_a_lora_stays_under_the_trained_one(world: Path, whole_run: Path, tmp_path: Path) -> None:
    """The teacher is the generator with it, and so are all sides."""
    under = (f"generator.adapter={whole_run}", "train.steps=1", "evaluation.few_steps=false")
    done = distil(small_recipe(world, tmp_path / "run", *under))
    plain = json.loads((whole_run / "evaluation.json").read_text())["base"]
    assert done.evaluation["base"]["clip_held_out"] != plain["clip_held_out"]
    recorded = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "generator.adapter: sha256:" in recorded
    torch.set_grad_enabled(True)

"""Memory that runs out after a step, in its clips or guards, costs nothing of the run.

The run warns, rolls back and stops, with a moving average: whatever is left of the step must be
done with its weights, its rewards and its random state.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reward_tuning.progress import ProgressEvent
from reward_tuning.runs import frame
from reward_tuning.runs.checkpoints import checkpoint_steps, read_checkpoint
from reward_tuning.runs.out_of_memory import OutOfMemory
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.tiny_run import tiny_recipe
from tests.reward_tuning.tuning.fooled import fooled_overrides, world
from tests.reward_tuning.tuning.test_resume import assert_same

pytestmark = pytest.mark.slow

__all__ = ["world"]  # a fixture
Place = tuple[int, str]
"""A step, and the stage after it."""


@pytest.fixture(scope="module")
def overrides(world: Path) -> tuple[str, ...]:
    return (
        *fooled_overrides(world, "bright"),
        "train.learning_rate=0.05",
        "train.ema_decay=0.5",
        "train.checkpoint_every=3",
        "train.keep_checkpoints=9",
        "train.sample_every=2",
        "train.steps=7",
        "sampling.steps=2",
        "method.active_steps=1",
        "guards.held_out=warn",
        "guards.drift={action: rollback, high: 0.3}",
        "guards.rollbacks=1",
        "tracking=[]",
    )


@pytest.fixture(scope="module")
def uninterrupted(
    world: Path, overrides: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("whole") / "run"
    run(tiny_recipe(world, output, *overrides))
    return output


def run_out_at(place: Place) -> Callable[[ProgressEvent], None]:
    """Let memory run out in the second sampling step of a stage."""
    step = 0

    def progress(event: ProgressEvent) -> None:
        nonlocal step
        if event.stage == "training":
            step = event.done
        elif (step, event.stage) == place and event.phase.startswith("step 2"):
            torch.rand(3)  # what a judge may draw
            raise torch.OutOfMemoryError("tried in vain")

    return progress


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / name).read_text().splitlines()
    return [{**json.loads(line), "seconds": None, "memory": None} for line in lines]


def assert_same_run(output: Path, expected: Path) -> None:
    assert_same(output, expected, without="checkpoints")
    for name in ("metrics.jsonl", "guards.jsonl"):
        assert rows(output, name) == rows(expected, name)
    places = [
        {path.relative_to(folder): path.read_bytes() for path in (folder / "samples").rglob("*.*")}
        for folder in (output, expected)
    ]
    assert places[0] == places[1]
    last = checkpoint_steps(expected / "checkpoints")[-1]
    name = f"checkpoints/step-{last:06d}"
    found, wanted = (read_checkpoint(folder / name) for folder in (output, expected))
    assert (found.step, found.reward_window, found.left) == (last, wanted.reward_window, None)
    assert torch.equal(found.rng["torch"], wanted.rng["torch"])


def test_the_run_rolls_back_where_memory_runs_out_below(uninterrupted: Path) -> None:
    back = [row["step"] for row in rows(uninterrupted, "guards.jsonl") if "back_to" in row]
    clips = {path.name for path in (uninterrupted / "samples").iterdir() if path.is_dir()}
    assert 4 in back
    assert {"step-000002", "step-000004", "step-000006"} <= clips


PLACES: dict[str, tuple[list[Place], list[int]]] = {
    "clips": ([(4, "samples")], [3, 4]),
    "clips, then guards, of one step": ([(2, "samples"), (2, "guards")], [2]),
    "clips twice": ([(2, "samples"), (2, "samples")], [2]),
    "last step": ([(7, "guards")], [3, 6, 7]),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_step_is_saved_and_what_is_left_of_it_is_done_by_the_resumed_run(
    world: Path, overrides: tuple[str, ...], uninterrupted: Path, tmp_path: Path, name: str
) -> None:
    output, (places, saved) = tmp_path / "run", PLACES[name]
    recipe = tiny_recipe(world, output, *overrides)
    for count, place in enumerate(places):
        with pytest.raises(OutOfMemory, match=f"out of memory in {place[1]} .*: tried in vain"):
            run(recipe, resume=count > 0, progress=run_out_at(place))
    assert checkpoint_steps(output / "checkpoints") == saved
    run(recipe, resume=True)
    assert_same_run(output, uninterrupted)


def test_every_decision_of_the_guards_is_made_by_the_resumed_run(
    world: Path, overrides: tuple[str, ...], uninterrupted: Path, tmp_path: Path
) -> None:
    """Also a rollback, and the stop."""
    fired = [row["step"] for row in rows(uninterrupted, "guards.jsonl") if row["fired"]]
    recipe = tiny_recipe(world, tmp_path / "run", *overrides)
    for count, step in enumerate(fired):
        with pytest.raises(OutOfMemory, match="out of memory in guards"):
            run(recipe, resume=count > 0, progress=run_out_at((step, "guards")))
    run(recipe, resume=True)
    assert_same_run(tmp_path / "run", uninterrupted)


def test_a_checkpoint_that_exists_is_not_written_again(
    world: Path,
    overrides: tuple[str, ...],
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That of the last step is there before the final evaluation; that of clips, from before."""
    saved: list[int] = []
    save = frame.save_state

    def counted(state: Any, *given: Any) -> None:
        saved.append(state.step)
        save(state, *given)

    monkeypatch.setattr(frame, "save_state", counted)
    recipe = tiny_recipe(world, tmp_path / "run", *overrides)
    places = [(2, "samples"), (2, "samples"), (7, "evaluation of tuned")]
    for count, place in enumerate(places):
        with pytest.raises(OutOfMemory, match=f"out of memory in {place[1]}"):
            run(recipe, resume=count > 0, progress=run_out_at(place))
    run(recipe, resume=True)
    assert saved == [2, 2, 3, 6, 7]  # step 2 again once its clips are drawn
    assert_same_run(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize("stage", ["samples", "guards"])
def test_what_was_left_is_done_once_more_after_a_kill_before_the_next_checkpoint(
    world: Path,
    overrides: tuple[str, ...],
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    """Rows and clips of the step are in the folder then, and none comes twice."""
    recipe = tiny_recipe(world, tmp_path / "run", *overrides)
    with pytest.raises(OutOfMemory):
        run(recipe, progress=run_out_at((4, stage)))

    def killed(*given: Any) -> None:
        raise InterruptedError

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(frame, "save_state", killed)
        run(recipe, resume=True)
    assert rows(tmp_path / "run", "guards.jsonl")[-1]["step"] == 4
    run(recipe, resume=True)
    assert_same_run(tmp_path / "run", uninterrupted)

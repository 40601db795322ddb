"""Schedules against diffusers' own; 8-bit AdamW, or one line where it cannot be."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from diffusers.optimization import get_scheduler
from torch import nn

from reward_tuning.errors import TuningError
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.optimiser import learning_rate, make_optimiser, require_optimiser
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import write_recipe

CPU = torch.device("cpu")


def recipe(folder: Path, *overrides: str) -> Recipe:
    return load_recipe(write_recipe(folder / "recipe"), [f"output={folder / 'run'}", *overrides])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("warmup", [0, 4])
def test_the_schedules_are_those_of_diffusers(tmp_path: Path, schedule: str, warmup: int) -> None:
    """But in the warm-up, which there begins with a step of no length."""
    settings = ("train.steps=20", f"train.warmup_steps={warmup}", f"train.lr_schedule={schedule}")
    train = recipe(tmp_path, *settings).train
    weight = nn.Parameter(torch.ones(1))
    optimiser = torch.optim.SGD([weight], lr=train.learning_rate)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    scheduler = get_scheduler(name, optimiser, num_warmup_steps=warmup, num_training_steps=20)
    theirs = []
    for _ in range(20):
        theirs.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    ours = [learning_rate(train, step) for step in range(1, 21)]
    assert ours[warmup:] == pytest.approx(theirs[warmup:], rel=1e-12)
    first = [train.learning_rate * step / 4 for step in range(1, warmup + 1)]
    assert ours[:warmup] == pytest.approx(first, rel=1e-12)
    assert ours[warmup] == train.learning_rate
    assert ours[-1] > 0


def test_a_schedule_that_depends_on_the_steps_fixes_them(tmp_path: Path) -> None:
    begun = recipe(tmp_path, "train.lr_schedule=cosine")
    folder = RunFolder(begun.output)
    folder.begin(begun, {})
    more = recipe(tmp_path, "train.lr_schedule=cosine", "train.steps=20")
    with pytest.raises(TuningError, match=r"train\.steps: was 10, is 20"):
        folder.open(more, resume=True)


def test_without_bitsandbytes_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = recipe(tmp_path, "train.optimiser=adamw-8bit").train
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(
        TuningError, match=r"adamw-8bit needs bitsandbytes.*pip install .bitsandbytes"
    ) as found:
        require_optimiser(train, CPU)
    assert "\n" not in str(found.value)
    require_optimiser(recipe(tmp_path).train, CPU)


@pytest.mark.skipif(not importlib.util.find_spec("bitsandbytes"), reason="needs bitsandbytes")
def test_eight_bits_follow_thirty_two(tmp_path: Path) -> None:
    """The same quadratic is brought down alike, and the state comes back from a checkpoint."""
    device = torch.device("cuda") if torch.cuda.is_available() else CPU
    start = torch.linspace(-1, 1, 64 * 128, device=device).view(64, 128)
    ends = []
    for kind in ("adamw", "adamw-8bit"):
        train = recipe(tmp_path, f"train.optimiser={kind}", "train.learning_rate=0.01").train
        require_optimiser(train, device)
        weight = nn.Parameter(start.clone())
        optimiser = make_optimiser(train, [weight])
        for step in range(50):
            if step == 25:
                torch.save(optimiser.state_dict(), tmp_path / "state.pt")
                kept = torch.load(tmp_path / "state.pt", map_location="cpu", weights_only=True)
                optimiser = make_optimiser(train, [weight])
                optimiser.load_state_dict(kept)
            weight.grad = weight.detach().clone()
            optimiser.step()
        ends.append(weight.detach())
    moved = (ends[0] - start).norm()
    assert float((ends[0] - ends[1]).norm() / moved) < 0.05

"""The whole estimate of the embedded demo."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from reward_tuning.estimate.cards import SHARE, Card
from reward_tuning.estimate.distil_work import DistilWork
from reward_tuning.estimate.estimate import Estimate, estimate, of_card, work_of
from reward_tuning.estimate.finetune_work import FinetuneWork
from reward_tuning.estimate.tuning_work import TuningWork
from reward_tuning.evidence.any_recipe import load_any_recipe
from reward_tuning.progress import ProgressEvent
from reward_tuning.schema.loading import load_recipe

FEW = ("train.steps=3", "evaluation.prompts=10", "evaluation.cache=null")


@cache
def demo() -> tuple[Estimate, tuple[str, ...]]:
    seen: list[ProgressEvent] = []
    recipe = load_recipe("tiny-drtune-hps", list(FEW))
    return estimate(recipe, progress=seen.append), tuple(event.phase or "" for event in seen)


@pytest.mark.slow
def test_the_reward_phase_needs_most() -> None:
    found, phases = demo()
    assert found.peak[0] == "reward"
    assert 1e8 < found.peak[1] < 4e8
    assert phases == ("memory", "operations")
    assert not found.notes


@pytest.mark.slow
def test_time_is_work_by_rate() -> None:
    found, _ = demo()
    assert found.time is not None
    assert found.time.seconds_a_step is found.time.hours is None
    named = of_card(found, Card("a", 24e9, 100), None)
    assert named.time is not None
    assert named.time.seconds_a_step == pytest.approx(found.time.step / (100e12 * SHARE))
    told = of_card(found, Card("", 24e9), 1e12)
    assert told.time is not None
    whole = (3 * found.time.step + found.time.evaluation) / 1e12 / 3600
    assert told.time.hours == pytest.approx(whole)
    unknown = of_card(found, Card("", 24e9), None)
    assert unknown.time is not None
    assert unknown.time.hours is None


@pytest.mark.slow
def test_clips_of_a_step() -> None:
    found, _ = demo()
    recipe = found.recipe
    assert found.time is not None
    clips = recipe.train.batch_size * recipe.train.gradient_accumulation
    assert found.time.step == pytest.approx(clips * sum(found.time.rows.values()))


def test_moments_of_8_bits() -> None:
    found, _ = demo()
    small = found.recipe.model_copy(
        update={"train": load_recipe("tiny-demo", ["train.optimiser=adamw-8bit"]).train}
    )
    plain = small.model_copy(update={"train": load_recipe("tiny-demo").train})
    few, many = (
        found.stored_as(one, gpus=1).memory["sweep"]["optimiser"] for one in (small, plain)
    )
    assert few == pytest.approx(many * (2 + 4) / (8 + 4))  # moments, and the average
    assert replace(found, notes=("a",)).peak == found.peak


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tiny-demo", TuningWork),
        ("finetune/tiny-lora", FinetuneWork),
        ("distil/tiny-4-steps", DistilWork),
    ],
)
def test_every_verb_has_its_work(name: str, kind: type) -> None:
    recipe = load_any_recipe(name, check_files=False)
    assert type(work_of(recipe, demo()[0].shape)) is kind


@pytest.mark.slow
def test_shared_weights_of_one_gpu_are_noted() -> None:
    recipe = load_any_recipe("distil/tiny-4-steps", ["generator.memory=sharded"], check_files=False)
    assert any("give --gpus" in note for note in estimate(recipe, gpus=1, time=False).notes)

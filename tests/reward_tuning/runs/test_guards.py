"""Guards: what each sees of a step, when it warns, and when it ends a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.finetune.step import training_loss
from reward_tuning.finetune.trainer import finetune
from reward_tuning.runs.guards import (
    CLIPPING_STEPS,
    IDLE_STEPS,
    VANISHING_STEPS,
    Clipping,
    Guard,
    Idle,
    NonFinite,
    StepFacts,
    Vanishing,
    finetune_guards,
    reward_guards,
)
from reward_tuning.schema.loading import load_recipe
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.finetune.clip_folder import small_recipe, write_world_of_clips
from tests.reward_tuning.recipes_for_tests import write_recipe
from tests.reward_tuning.tiny_run import tiny_recipe, write_world


@dataclass
class Counts:
    step: int
    bad_steps: int = 0
    bad_in_a_row: int = 0
    idle_steps: int = 0


def facts(grad_norm: float, *, loss: float = 0.5, taken: bool | None = None) -> StepFacts:
    """Step 7, taken where loss and gradient are finite."""
    finite = math.isfinite(loss) and math.isfinite(grad_norm)
    return StepFacts(7, loss, grad_norm, finite if taken is None else taken, lambda: "why")


@pytest.mark.parametrize(
    ("norm", "loss", "idle"), [(0.0, 0.5, True), (1e-9, 0.5, False), (0.0, math.nan, False)]
)
def test_a_step_is_idle_where_it_was_taken_with_no_gradient(
    norm: float, loss: float, idle: bool
) -> None:
    assert facts(norm, loss=loss).idle == idle


def test_a_rule_may_leave_out_what_it_does_not_need() -> None:
    worst = Counts(3, bad_steps=3, bad_in_a_row=3, idle_steps=3)
    guard = Guard()
    assert (guard.warn(facts(math.nan)), guard.stop(worst), guard.reject(worst)) == (None,) * 3


@pytest.mark.parametrize(
    ("loss", "norm", "told"),
    [
        (0.5, 2.0, None),
        (math.nan, math.nan, "step 7 skipped: the loss is nan"),
        (-math.inf, 1.0, "step 7 skipped: the loss is -inf"),
        (0.5, math.inf, "step 7 skipped: the gradient's norm is inf"),
    ],
)
def test_a_skipped_step_names_what_is_not_finite(
    loss: float, norm: float, told: str | None
) -> None:
    assert NonFinite(5).warn(facts(norm, loss=loss)) == told


def test_too_many_skipped_steps_in_a_row_end_the_run() -> None:
    guard = NonFinite(3)
    assert guard.stop(Counts(9, bad_steps=8, bad_in_a_row=2)) is None
    told = guard.stop(Counts(9, bad_steps=3, bad_in_a_row=3))
    assert str(told).startswith("3 steps in a row (up to step 9) gave NaN or infinity")
    assert "train.max_bad_steps allows 3. Lower train.learning_rate" in str(told)


def test_a_vanishing_gradient_is_warned_of_once() -> None:
    guard = Vanishing()
    told = [guard.warn(facts(5e-4)) for _ in range(VANISHING_STEPS * 3)]
    assert [i for i, text in enumerate(told) if text] == [VANISHING_STEPS - 1]
    assert "method.rescale=1" in str(told[VANISHING_STEPS - 1])


def test_a_single_small_gradient_is_no_warning() -> None:
    guard = Vanishing()
    told = [guard.warn(facts(1e-4 if i % VANISHING_STEPS else 1e-2)) for i in range(30)]
    assert told == [None] * 30


def test_a_gradient_of_zero_is_another_matter() -> None:
    guard = Vanishing()
    assert not any(guard.warn(facts(0.0)) for _ in range(3 * VANISHING_STEPS))


def test_a_skipped_step_neither_counts_nor_interrupts() -> None:
    guard = Vanishing()
    norms = [5e-4] * (VANISHING_STEPS - 1) + [math.inf, 5e-4]
    told = [guard.warn(facts(norm)) for norm in norms]
    assert [i for i, text in enumerate(told) if text] == [VANISHING_STEPS]


def test_clipping_is_warned_of_once() -> None:
    guard = Clipping(0.5)
    told = [guard.warn(facts(2.0)) for _ in range(3 * CLIPPING_STEPS)]
    assert [i for i, text in enumerate(told) if text] == [CLIPPING_STEPS - 1]
    assert "max_grad_norm = 0.5" in str(told[CLIPPING_STEPS - 1])


@pytest.mark.parametrize("limit", [None, 0.5])
def test_clipping_now_and_then_is_no_warning(limit: float | None) -> None:
    guard = Clipping(limit)
    norms = (0.1 if limit and i % 10 == 0 else 2.0 for i in range(60))
    assert not any(guard.warn(facts(norm)) for norm in norms)


def test_a_skipped_step_is_not_a_clipped_one() -> None:
    guard = Clipping(0.5)
    assert not any(guard.warn(facts(math.inf)) for _ in range(3 * CLIPPING_STEPS))


SHORT = ("evaluation.prompts=2", "evaluation.seeds=1", "train.checkpoint_every=50")
COARSE = """
class Coarse:
    def __call__(self, frames, prompts):
        return (frames - frames.detach() + 0.5).round().mean((1, 2, 3, 4))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield write_world(tmp_path_factory.mktemp("world"))


def refused(world: Path, output: Path, *overrides: str) -> tuple[str, list[str]]:
    """Of a run that trains nothing: the error and the warnings."""
    notes: list[str] = []
    with pytest.raises(TuningError) as found:
        run(
            tiny_recipe(world, output, *SHORT, *overrides),
            progress=lambda event: notes.append(event.note),
        )
    return str(found.value), [note for note in notes if "trained nothing" in note]


@pytest.mark.slow
def test_a_hinge_that_is_reached(world: Path, tmp_path: Path) -> None:
    judge = f"rewards.0={{kind: clip, checkpoint: {world}/judge/flat.safetensors, target: -0.9}}"
    told, notes = refused(world, tmp_path / "run", judge)
    assert told.startswith("no step of 6 trained anything: 6 had a gradient of zero; nothing is ex")
    assert "The hinge is reached: every clip's score is at its target (clip -0." in told
    assert "of -0.9" in told
    assert len(notes) == 1
    assert notes[0].startswith("5 steps in a row trained nothing")
    assert not (tmp_path / "run" / "lora").exists()
    with pytest.raises(TuningError, match="no step of 6 trained anything"):
        run(tiny_recipe(world, tmp_path / "run", *SHORT, judge), resume=True)


def test_a_judge_without_gradient(world: Path, tmp_path: Path) -> None:
    file = tmp_path / "coarse.py"
    file.write_text(COARSE)
    judge = f"rewards.0={{kind: python, checkpoint: {file}, name: coarse}}"
    told, notes = refused(world, tmp_path / "run", "train.steps=2", judge)
    assert "The scores of coarse do not change with the frames" in told
    assert notes == []  # the error says it


def test_a_fine_tuning_without_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "reward_tuning.finetune.trainer.training_loss",
        lambda *arguments, **options: 0.0 * training_loss(*arguments, **options),
    )
    clips = write_world_of_clips(tmp_path / "clips")
    settings = ("train.steps=1", "samples.count=0")
    with pytest.raises(TuningError, match=r"no step of 1 .*flow\.most_error"):
        finetune(small_recipe(clips, tmp_path / "fine", *settings))


def test_steps_that_are_all_skipped(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer than train.max_bad_steps, which ends a run earlier."""
    monkeypatch.setattr(
        "reward_tuning.tuning.trainer.mean_over_ranks", lambda *_: {"loss": math.nan, "motion": 0.0}
    )
    with pytest.raises(TuningError, match=r"no step of 2 .*: 2 were skipped for NaN or infinity"):
        run(tiny_recipe(world, tmp_path / "run", "train.steps=2", *SHORT))


def test_idle_steps_are_warned_of_once_and_only_after_some_in_a_row() -> None:
    guard = Idle()
    idle = [True] * 4 + [False] + [True] * 12
    told = [guard.warn(facts(grad_norm=0.0 if step else 1.0)) for step in idle]
    assert [i for i, note in enumerate(told) if note] == [9]
    assert told[9] == "5 steps in a row trained nothing: the gradient is zero. why"


def test_a_step_that_was_skipped_is_not_idle() -> None:
    guard = Idle()
    assert not any(guard.warn(facts(grad_norm=0.0, taken=False)) for _ in range(10))


@pytest.mark.parametrize(
    ("bad_steps", "idle_steps", "told"),
    [
        (1, 1, None),
        (3, 0, "no step of 3 trained anything: 3 were skipped for NaN or infinity"),
        (0, 3, "no step of 3 trained anything: 3 had a gradient of zero; nothing is exported"),
        (1, 2, "or use generator.dtype float32 instead of half precision) and 2 had a gradient"),
    ],
)
def test_a_run_that_trained_nothing_is_rejected(
    bad_steps: int, idle_steps: int, told: str | None
) -> None:
    found = Idle().reject(Counts(3, bad_steps=bad_steps, idle_steps=idle_steps))
    assert (found is None) == (told is None)
    assert told is None or told in str(found)


def warnings(guards: list[Guard], *norms: float) -> list[str]:
    found = (guard.warn(facts(norm)) for norm in norms for guard in guards)
    return [text.partition(":")[0] for text in found if text]


def test_a_reward_tuning_watches_the_size_of_its_gradient(tmp_path: Path) -> None:
    settings = ["train.max_grad_norm=0.5", "train.max_bad_steps=2"]
    train = load_recipe(write_recipe(tmp_path), settings).train
    norms = [math.inf, *[0.0] * IDLE_STEPS, *[1e-4] * VANISHING_STEPS, *[1.0] * CLIPPING_STEPS]
    skipped, idle, vanishing, clipped = (
        "step 7 skipped",
        f"{IDLE_STEPS} steps in a row trained nothing",
        "the gradient vanishes",
        "more than 95% of the last 20 steps were clipped to train.max_grad_norm = 0.5, so the step "
        "length no longer follows the gradient. Raise max_grad_norm, or lower method.nested or "
        "rewards.*.weight",
    )
    assert warnings(reward_guards(train), *norms) == [skipped, idle, vanishing, clipped]
    assert warnings(finetune_guards(train), *norms) == [skipped, idle]
    for guards in (reward_guards(train), finetune_guards(train)):
        assert any(guard.stop(Counts(2, bad_in_a_row=2)) for guard in guards)
        assert not any(guard.stop(Counts(1, bad_in_a_row=1)) for guard in guards)
        assert any(guard.reject(Counts(2, idle_steps=2)) for guard in guards)

"""The split into training and held-out clips, the shapes of batches, the fingerprint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.finetune.metadata import ClipRow
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.survey import Survey, UsableClip
from reward_tuning.finetune.training_set import (
    TrainingSet,
    batch_sizes,
    find_training_set,
    held_out_order,
    split,
)
from reward_tuning.finetune.video_files import ClipInfo
from reward_tuning.progress import ProgressEvent, silent
from tests.reward_tuning.finetune.clip_folder import small_recipe, write_world_of_clips


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world_of_clips(tmp_path_factory.mktemp("world"))


def clip(name: str, frames: int = 9, size: tuple[int, int] = (40, 40)) -> UsableClip:
    return UsableClip(ClipRow(Path(name), name, "video"), ClipInfo(frames, *size))


CLIPS = tuple(clip(f"{i}.mp4") for i in range(10))


def test_the_seed_draws_the_held_out_clips() -> None:
    train, held_out = split(CLIPS, 3, seed=1)
    assert (len(train), len(held_out)) == (7, 3)
    assert sorted((*train, *held_out), key=lambda one: one.row.text) == list(CLIPS)
    assert split(CLIPS, 3, seed=1) == (train, held_out)
    assert len({split(CLIPS, 3, seed=seed)[1] for seed in range(8)}) > 4
    assert list(train) == [one for one in CLIPS if one in train]  # in the order of the list


@pytest.mark.parametrize("held_out", [10, 11])
def test_something_must_be_left_to_train_on(held_out: int) -> None:
    with pytest.raises(TuningError, match=f"got {held_out}; 10 clips can be used, so at most 9"):
        split(CLIPS, held_out, seed=1)


def recipe(world: Path, output: Path, *overrides: str) -> FinetuneRecipe:
    return small_recipe(world, output, *overrides)


def test_batches_have_the_recipes_shapes_and_held_out_ones_nothing_to_draw(
    world: Path, tmp_path: Path
) -> None:
    settings = ("data.sides=[64,32]", "data.draw_frames=true", "data.adapt_sides=true")
    of = recipe(world, tmp_path / "run", *settings)
    sizes = batch_sizes(of)
    assert (sizes.sides, sizes.image_sides, sizes.frames) == ((64, 32), (64, 32), 5)
    assert sizes.draw_frames and sizes.adapt
    order = held_out_order(of, CLIPS[:3])
    batches = [order(number) for number in range(order.epoch)]
    assert sorted(batch.clips for batch in batches) == [(0,), (1,), (2,)]
    assert {(batch.frames, batch.height, batch.width) for batch in batches} == {(5, 64, 64)}


def test_the_set_of_a_recipe(world: Path, tmp_path: Path) -> None:
    notes: list[str] = []

    def note(event: ProgressEvent) -> None:
        notes.append(event.note)

    found = find_training_set(recipe(world, tmp_path / "run"), 16, note)
    assert (len(found.survey.clips), len(found.clips), len(found.held_out)) == (5, 4, 1)
    assert any(text.startswith("3 of 8 clips are") for text in notes)
    assert max(max(found.order(n).clips) for n in range(found.order.epoch)) == 3


def test_a_budget_that_one_frame_exceeds_is_refused_before_training(
    world: Path, tmp_path: Path
) -> None:
    of = recipe(world, tmp_path / "run")
    too_large = of.data.model_copy(update={"tokens": 3328, "sides": (2048,)})
    with pytest.raises(ValueError, match="3328"):
        find_training_set(of.model_copy(update={"data": too_large}), 16, silent)


def test_the_fingerprint_changes_with_everything_that_changes_a_batch(tmp_path: Path) -> None:
    def written(name: str, content: bytes = b"abc") -> UsableClip:
        (tmp_path / name).write_bytes(content)
        return UsableClip(ClipRow(tmp_path / name, "a", "video"), ClipInfo(9, 40, 40))

    def fingerprint(*clips: UsableClip) -> str:
        survey = Survey(clips, ())
        return TrainingSet(survey, clips, (), None).fingerprint()  # type: ignore[arg-type]

    one, two = written("1.mp4"), written("2.mp4")
    first = fingerprint(one, two)
    assert fingerprint(one, two) == first
    assert first.startswith("sha256:")
    longer = replace(one, info=ClipInfo(13, 40, 40))
    captioned = replace(one, row=replace(one.row, text="b"))
    controlled = replace(one, row=replace(one.row, control=tmp_path / "c.mp4"))
    others = {
        fingerprint(two, one),
        fingerprint(one),
        *(fingerprint(other, two) for other in (longer, captioned, controlled)),
    }
    others.add(fingerprint(written("1.mp4", b"abcd"), two))
    assert len(others) == 6
    assert first not in others

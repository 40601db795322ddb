"""Batches of a fine-tuning: of clips that are there, and of a list that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.estimate.clip_batches import ClipBatches, clip_batches
from reward_tuning.evidence.any_recipe import load_any_recipe
from reward_tuning.finetune.recipe import FinetuneRecipe
from tests.reward_tuning.finetune.clip_folder import write_clips

STAGE = "finetune/stage-4-13312-i2v"


def recipe_of(name: str, *overrides: str) -> FinetuneRecipe:
    recipe = load_any_recipe(name, overrides, check_files=False)
    assert isinstance(recipe, FinetuneRecipe)
    return recipe


def without_clips(*overrides: str) -> ClipBatches:
    return clip_batches(recipe_of(STAGE, "data.metadata=nowhere.json", *overrides), 33)


def test_clips_that_are_not_here_are_assumed_to_be_square_and_long() -> None:
    found = without_clips("train.batch_size=2", "data.held_out=3", "data.draw_frames=false")
    sizes = {(batch.height, batch.width) for batch, _ in found.training}
    assert sizes == {(side, side) for side in (512, 640, 768, 896, 1024)}
    assert {batch.frames for batch, _ in found.training if batch.height == 512} == {49}
    assert all(batch.frames < 49 for batch, _ in found.training if batch.height == 1024)
    assert sum(count for _, count in found.training) == 1000
    assert all(len(batch.clips) == 2 for batch, _ in found.training)
    assert [(one.height, one.frames, len(one.clips)) for one in found.held_out] == [
        (512, 49, 1)
    ] * 3
    assert found.notes[0].startswith("data.metadata: there is no nowhere.json")


def test_the_largest_batch_and_the_largest_clip() -> None:
    """Small clips are repeated under a budget, so more tokens need not be a larger clip."""
    found = without_clips(
        "data.sides=[128,512]", "data.draw_frames=false", "data.adapt_sides=false"
    )
    shapes = {(batch.height, batch.copies) for batch, _ in found.training}
    assert shapes == {(128, 4), (512, 1)}
    assert [(batch.height, batch.copies) for batch in found.largest] == [(512, 1)]
    small = without_clips("data.sides=[256,320]", "data.draw_frames=false", "train.batch_size=1")
    assert {(b.height, b.copies) for b, _ in small.training} == {(256, 2), (320, 1)}
    assert [(b.height, b.copies) for b in small.largest] == [(256, 2), (320, 1)]


def test_batches_are_spread_over_the_run() -> None:
    found = without_clips()
    spread = found.spread(4)
    assert len(spread) == 4
    tokens = [batch.frames * batch.height * batch.width for batch in spread]
    assert tokens[0] < tokens[-1]
    one = without_clips("data.sides=[256]", "data.draw_frames=false")
    assert len(one.spread(4)) == 1


def test_the_clips_that_are_here(tmp_path: Path) -> None:
    metadata = write_clips(tmp_path)
    recipe = recipe_of(
        "finetune/tiny-lora",
        f"data.metadata={metadata}",
        *("data.held_out=1", "data.sides=[32]", "train.batch_size=2"),
        f"data.cache={tmp_path / 'cache'}",
    )
    found = clip_batches(recipe, 16)
    sizes = {(batch.frames, batch.height == batch.width) for batch, _ in found.training}
    assert sizes <= {(9, True), (5, False)}
    assert (9, True) in sizes
    assert all(len(batch.clips) == 2 for batch, _ in found.training)
    assert len(found.held_out) == 1
    assert found.notes == ["data.cache: every batch counts as encoded anew"]
    metadata.write_text("file_path,text,type\ncut.mp4,a,video\n")
    with pytest.raises(TuningError, match="can be used"):
        clip_batches(recipe, 16)

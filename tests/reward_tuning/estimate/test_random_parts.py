"""Parts of a step at any size: the published number of weights, and a step that trains."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from base_model.files.published_generators import published_size
from benchmarks.small_shape import SMALL, SMALL_CLIP
from reward_tuning.errors import TuningError
from reward_tuning.estimate.random_parts import random_generator, random_parts
from reward_tuning.estimate.shapes import shape_of
from reward_tuning.schema.loading import load_recipe
from reward_tuning.tuning.trainer import optimiser_step, start

NAME = "easyanimate-v5.1-12b-hps"


def test_the_published_generator_has_the_published_number_of_weights() -> None:
    recipe = load_recipe(NAME, check_files=False)
    generator = random_generator(recipe.generator, shape_of(recipe.generator), torch.device("meta"))
    size = published_size(recipe.generator.checkpoint)
    assert size is not None
    count = sum(one.numel() for one in generator.transformer.parameters())
    assert count == pytest.approx(size.transformer, rel=1e-4)


def test_a_small_one_trains_with_values() -> None:
    overrides = [*SMALL_CLIP, "generator.dtype=float32", "train.gradient_accumulation=1"]
    recipe = load_recipe(NAME, overrides, check_files=False)
    parts = random_parts(recipe, SMALL, torch.device("cpu"))
    row = optimiser_step(recipe, parts, start(recipe, parts), Accelerator(cpu=True))
    assert row["grad_norm"] > 0


def test_a_replay_is_refused() -> None:
    recipe = load_recipe("tiny-drtune-hps", ["train.replay={weight: 1}"])
    with pytest.raises(TuningError, match=r"set train\.replay=null"):
        random_parts(recipe, SMALL, torch.device("meta"))

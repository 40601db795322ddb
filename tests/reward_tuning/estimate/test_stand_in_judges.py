"""Judges with the right shapes, with and without files."""

from __future__ import annotations

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.estimate.shapes import shape_of
from reward_tuning.estimate.stand_in_judges import formula_judge, is_known, judges_for_shape
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.judges.offload import judge_modules
from reward_tuning.schema.loading import load_recipe

META = torch.device("meta")
VIT_H_14 = 986_109_441
"""Weights of OpenCLIP's ViT-H-14, as its authors state (986.11 M)."""


def test_a_published_judge_is_built_without_its_file() -> None:
    recipe = load_recipe("easyanimate-v5.1-12b-hps", check_files=False)
    shape = shape_of(recipe.generator)
    (judge,) = judges_for_shape(recipe.rewards, shape, 49, META)
    (model,) = judge_modules([judge])
    assert sum(one.numel() for one in model.parameters()) == VIT_H_14
    assert model.visual.conv1.weight.dtype == torch.bfloat16
    assert len(judge.positions) == 5


def test_an_embedded_judge_is_that_of_its_file() -> None:
    recipe = load_recipe("tiny-demo")
    shape = shape_of(recipe.generator)
    judges = judges_for_shape(recipe.rewards, shape, 9, META)
    assert [judge.label for judge in judges] == ["hps", "image_reward"]
    for judge in judges:
        assert isinstance(judge, FramedJudge)
        assert all(one.is_meta for module in judge_modules([judge]) for one in module.parameters())


def test_a_judge_whose_shapes_nobody_knows_is_refused() -> None:
    overrides = ["rewards.0.kind=image_reward", "rewards.0.checkpoint=image-reward"]
    recipe = load_recipe(
        "easyanimate-v5.1-12b-hps", [*overrides, "rewards.0.chunk=null"], check_files=False
    )
    shape = shape_of(recipe.generator)
    assert not is_known(recipe.rewards[0], shape)
    with pytest.raises(TuningError, match="shapes of the judge image_reward are not known"):
        judges_for_shape(recipe.rewards, shape, 49, META)


def test_a_formula_stands_for_judges_that_are_not_counted() -> None:
    judge = formula_judge(3)
    frames = torch.rand(2, 3, 3, 4, 4, requires_grad=True)
    scores = judge.scores(frames, ["a", "b"])
    assert scores.shape == (2,)
    scores.sum().backward()
    assert frames.grad is not None

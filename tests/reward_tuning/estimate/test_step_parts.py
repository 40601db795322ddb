"""Labels of a step's parts."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from benchmarks.small_shape import SMALL, SMALL_CLIP
from reward_tuning.estimate.random_parts import random_parts
from reward_tuning.estimate.stand_in_judges import formula_judge
from reward_tuning.estimate.step_parts import Parts, watched
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.trainer import optimiser_step, start

SHORT = ("sampling.steps=5", "method.early_stop=true", "method.active_steps=2", "train.steps=20")


def small(*overrides: str) -> Recipe:
    every = [*SMALL_CLIP, *SHORT, *overrides, "train.gradient_accumulation=1"]
    return load_recipe("easyanimate-v5.1-12b-hps-long", every, check_files=False)


def test_labels_change_no_number() -> None:
    def gradient(label: bool) -> list[torch.Tensor]:
        recipe = small("generator.dtype=float32")
        parts, where = random_parts(recipe, SMALL, torch.device("cpu")), Parts()
        if label:
            watched(parts.sampler.generator, parts.judges, where)
        state = start(recipe, parts)
        optimiser_step(recipe, parts, state, Accelerator(cpu=True), where.on_progress)
        return [p.grad for p in parts.trained.parameters if p.grad is not None]

    plain, labelled = gradient(False), gradient(True)
    assert len(plain) == len(labelled) > 0
    assert all(torch.equal(a, b) for a, b in zip(plain, labelled, strict=True))


def test_judges_of_whole_clips_are_labelled_too() -> None:
    recipe = small("generator.dtype=float32")
    parts, where = random_parts(recipe, SMALL, torch.device("meta")), Parts()
    judge = formula_judge(3)
    seen: list[str] = []
    plain = type(judge.reward).__call__
    type(judge.reward).__call__ = lambda self, *a: (seen.append(where.part), plain(self, *a))[1]
    try:
        watched(parts.sampler.generator, [judge], where)
        scores = judge.scores(torch.ones(2, 3, 3, 4, 4), ["a", "b"])
    finally:
        type(judge.reward).__mro__[1].__call__ = plain
    assert seen == ["judges"]
    assert where.part == "rest"
    assert scores.tolist() == [1.0, 1.0]

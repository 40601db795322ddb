"""A guard evaluation: which prompts, which noise, which numbers, and no trace of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from reward_tuning.errors import TuningError
from reward_tuning.progress import silent
from reward_tuning.runs.out_of_memory import MeasuringOutOfMemory
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning import guard_evaluation
from reward_tuning.tuning.clip_features import feature_judge
from reward_tuning.tuning.drift import mean_drift, velocity_drift
from reward_tuning.tuning.evaluation import evaluation_seed
from reward_tuning.tuning.guard_base import check_comparable, read_base, save_base
from reward_tuning.tuning.guard_evaluation import (
    PIXELS,
    GuardEvaluation,
    GuardScores,
    guard_prompts,
    undisturbed,
)
from reward_tuning.tuning.held_out_judges import held_out_judges
from reward_tuning.tuning.parts import RunParts, load_parts
from reward_tuning.tuning.sigma_tables import guard_sigmas
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

SETTINGS = ("guards.prompts=2", "guards.diversity.prompts=1", "guards.drift.prompts=2")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def loaded(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, RunParts]:
    recipe = tiny_recipe(world, tmp_path_factory.mktemp("run"), *SETTINGS)
    return recipe, load_parts(recipe, torch.device("cpu"), 2, silent)


def tuned(parts: RunParts) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(9)
    return {n: 0.3 * torch.randn(t.shape, generator=draw) for n, t in parts.trained.state().items()}


def test_prompts_are_spread_over_those_of_the_evaluation(
    loaded: tuple[Recipe, RunParts],
) -> None:
    recipe, parts = loaded
    many = [parts.held_out[0]] * 3 + [parts.held_out[1]] * 3
    assert guard_prompts(recipe, many) == [many[0], many[3]]
    assert guard_prompts(recipe, many[:1]) == many[:1]


def test_every_number_is_that_of_clips_drawn_one_by_one(loaded: tuple[Recipe, RunParts]) -> None:
    recipe, parts = loaded
    evaluation = GuardEvaluation(recipe, parts, Accelerator(), silent)
    base, adapter = evaluation.base(), tuned(parts)
    found = evaluation.now(adapter, base)
    (judge,), _ = held_out_judges(recipe, parts.offload, torch.device("cpu"))
    seed, prompts = derive_seed(recipe.seed, "guards"), evaluation.prompts
    assert len(prompts) == 2
    parts.trained.load(adapter)
    clips = []
    for index, prompt in ((0, prompts[0]), (1, prompts[1]), (2, prompts[0])):
        seeds = [evaluation_seed(seed, index, 0)]
        latents = parts.sampler.latents([prompt], seeds, guard_sigmas(recipe))
        clips.append(parts.sampler.generator.decode(latents))
    with torch.no_grad():
        texts = [prompt.reward_text for prompt in (*prompts, prompts[0])]
        scores = [
            float(judge.scores(clip, [text])) for clip, text in zip(clips, texts, strict=True)
        ]
        looks = [judge.reward.clip_features(judge.judged(clip, 0)) for clip in clips]
    # The first prompt has two clips, and its value is their mean.
    expected = [(scores[0] + scores[2]) / 2, scores[1]]
    assert found.values["clip_held_out"] == pytest.approx(expected, abs=1e-5)
    motions = [float(clip.diff(dim=1).abs().mean()) for clip in clips]
    expected = [(motions[0] + motions[2]) / 2, motions[1]]
    assert found.values["motion"] == pytest.approx(expected, rel=1e-4)
    assert found.diversity == pytest.approx(
        [1 - float(F.cosine_similarity(looks[0], looks[2]))], abs=1e-5
    )
    assert (found.diversity_of, found.latents) == ("clip_held_out", {})
    drift = velocity_drift(
        parts.sampler,
        adapter,
        None,
        base.latents,
        dict(enumerate(prompts)),
        seed=seed,
        batch_size=4,
    )
    assert found.drift == pytest.approx(mean_drift([drift]), rel=1e-5)
    assert found.drift is not None
    assert found.drift > 0.01
    assert found.values["motion"] != base.values["motion"]
    assert list(base.latents) == [0, 1]  # not the second clip, whose index is 2


def test_a_base_reads_back_equal_unless_its_keys_change(
    loaded: tuple[Recipe, RunParts], world: Path, tmp_path: Path
) -> None:
    recipe, parts = loaded
    base = GuardEvaluation(recipe, parts, Accelerator(), silent).base()
    path = tmp_path / "base.safetensors"
    assert read_base(path, recipe) is None
    save_base(path, base, recipe)
    kept = read_base(path, recipe)
    assert kept is not None
    assert (kept.values, kept.diversity) == (base.values, base.diversity)
    assert all(torch.equal(kept.latents[i], base.latents[i]) for i in base.latents)
    for change in (
        "guards.prompts=3",
        "guards.steps=3",
        "guards.drift=off",
        "guards.diversity=off",
    ):
        other = tiny_recipe(world, tmp_path, *SETTINGS, change)
        assert read_base(path, other) is None
        rows = [{"step": 2}]
        check_comparable(path, [], other)
        if "prompts" in change or "steps" in change:
            with pytest.raises(TuningError, match=change.split("=")[0]):
                check_comparable(path, rows, other)
        else:
            check_comparable(path, rows, other)
    path.write_bytes(path.read_bytes()[:40])
    assert read_base(path, recipe) is None


def test_what_is_off_is_not_measured(world: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(world, tmp_path, *SETTINGS, "guards.diversity=off", "guards.drift=off")
    parts = load_parts(recipe, torch.device("cpu"), 2, silent)
    evaluation = GuardEvaluation(recipe, parts, Accelerator(), silent)
    base = evaluation.base()
    found = evaluation.now(tuned(parts), base)
    assert (base.latents, found.diversity, found.drift) == ({}, [], None)


def test_the_global_generators_are_as_before() -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    with undisturbed():
        first = drawn()
    assert drawn() == first


def test_without_a_judge_of_features_pixels_are_compared(world: Path, tmp_path: Path) -> None:
    (world / "grey.py").write_text(
        "class Judge:\n    def __call__(self, frames, prompts):\n"
        "        return frames.mean((1, 2, 3, 4))\n"
    )
    judge = f"{{kind: python, checkpoint: {world / 'grey.py'}, name: grey}}"
    recipe = tiny_recipe(
        world, tmp_path, *SETTINGS, f"rewards=[{judge}]", "evaluation.held_out_rewards=[]"
    )
    parts = load_parts(recipe, torch.device("cpu"), 2, silent)
    assert feature_judge(parts.judges) is None
    assert GuardEvaluation(recipe, parts, Accelerator(), silent).base().diversity_of == PIXELS


@pytest.mark.parametrize("side", ["base", "now"])
def test_memory_that_runs_out_for_the_whole_weights_is_named(
    loaded: tuple[Recipe, RunParts], monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """Alone: the exchange that gathers them has failed, and another would never end."""

    @contextmanager
    def none_left(transformer: object) -> Iterator[None]:
        raise torch.OutOfMemoryError("tried in vain")
        yield

    recipe, parts = loaded
    evaluation = GuardEvaluation(recipe, parts, Accelerator(), silent)
    monkeypatch.setattr(guard_evaluation, "whole_blocks", none_left)
    with pytest.raises(MeasuringOutOfMemory, match="tried in vain") as failed:
        if side == "base":
            evaluation.base()
        else:
            evaluation.now(tuned(parts), GuardScores({}, []))
    assert not failed.value.shared

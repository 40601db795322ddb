"""The values of an evaluation against the loop of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from base_model.sampling.sigmas import sigma_table
from reward_tuning.evidence.clip_cache import ClipCache
from reward_tuning.evidence.evaluator import Evaluator
from reward_tuning.evidence.loaded import Loaded
from reward_tuning.evidence.metric_names import metric_names
from reward_tuning.evidence.named_adapters import named_adapters, read_named_adapters
from reward_tuning.evidence.request import EvaluationRequest
from reward_tuning.evidence.score_cache import ScoreCache
from reward_tuning.evidence.setup import resolve
from reward_tuning.evidence.sides_plan import planned_sides
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.lora.adapter import adapter_state
from reward_tuning.lora.attached import attached
from reward_tuning.progress import silent
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.drift import DRIFT_SIGMAS
from reward_tuning.tuning.evaluation import evaluate
from rewards import FrameReward


def test_a_side_is_what_the_loop_of_a_run_finds(finished: Path, tmp_path: Path) -> None:
    setup = resolve(EvaluationRequest([finished]))
    loaded = Loaded(setup, torch.device("cpu"), silent)
    (adapter,) = read_named_adapters(named_adapters([finished]), loaded.shapes)
    base, half = planned_sides(setup, [adapter], [0.5])
    evaluator = Evaluator(
        setup,
        loaded,
        metric_names(setup, sharpness=True),
        ClipCache(tmp_path / "clips"),
        ScoreCache(tmp_path / "scores"),
        silent,
    )
    shown: dict[tuple[int, int], Tensor] = {}

    def seen(prompt: int, clip: int, frames: Tensor) -> None:
        shown[prompt, clip] = frames

    of_base = evaluator.evaluate(base, base, [], seen)
    assert not shown
    found = evaluator.evaluate(half, base, [(1, 0), (2, 1)], seen)
    sampler, prompts = loaded.sampler, dict(enumerate(setup.prompts))
    transformer = sampler.generator.transformer
    assert not adapter_state(transformer)  # it is off again
    with attached(transformer, adapter.weights):
        expected = evaluate(
            sampler,
            adapter_state(transformer),
            prompts,
            loaded.judges,
            sigma_table(4),
            seed=3,
            strength=0.5,
            seeds=2,
            keep_clips=3,
        )
        expected_base = evaluate(
            sampler, None, prompts, loaded.judges, sigma_table(4), seed=3, seeds=2
        )
    for name in ("clip", "clip_held_out", "motion", "saturation"):
        assert found.values[name] == pytest.approx(expected.values[name], abs=1e-5)
        assert of_base.values[name] == pytest.approx(expected_base.values[name], abs=1e-5)
    assert set(shown) == {(1, 0), (2, 1)}
    assert torch.allclose(shown[1, 0], expected.clips[1], atol=1e-4)
    assert set(found.values) - set(of_base.values) == {"drift"}
    # the drift by its formula, on a clip that the base made
    clip = evaluator.clips.read(loaded.facts(base, 1, 0).key)
    assert clip is not None
    noise, expected_drift = sampler.noise([derive_seed(3, "drift", 1)]), 0.0
    condition = sampler.condition([setup.prompts[1]]).positive
    for sigma in DRIFT_SIGMAS:
        x = (1 - sigma) * clip[None] + sigma * noise
        with torch.no_grad():
            before = sampler.generator.velocity(x, sigma, condition)
            with attached(transformer, adapter.weights, 0.5):
                after = sampler.generator.velocity(x, sigma, condition)
        expected_drift += float((after - before).norm() / before.norm()) / len(DRIFT_SIGMAS)
    assert found.values["drift"][1] == pytest.approx(expected_drift, rel=1e-3)
    assert expected_drift > 1e-4
    # features of the held-out judge, of both clips of a prompt
    judge = loaded.judges[1]
    assert isinstance(judge, FramedJudge)
    assert isinstance(judge.reward, FrameReward)
    clips = []
    for clip in range(2):
        latents = evaluator.clips.read(loaded.facts(half, 2, clip).key)
        assert latents is not None
        with torch.no_grad():
            clips.append(judge.reward.clip_features(sampler.generator.decode(latents[None]))[0])
    cosine = float(clips[0] @ clips[1] / clips[0].norm() / clips[1].norm())
    assert found.values["feature_diversity"][2] == pytest.approx(1 - cosine, abs=1e-5)

"""A batch of an evaluation: so many clips, so many steps, every judge of frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.generator import Generator
from benchmarks.small_shape import SMALL, SMALL_CLIP
from reward_tuning.estimate.evaluation_batch import FOLLOWED_STEPS, evaluate_batch
from reward_tuning.estimate.random_parts import random_parts
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.schema.loading import load_recipe


def test_what_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*SMALL_CLIP, "generator.dtype=float32", "rewards.0.dtype=float32"]
    recipe = load_recipe("easyanimate-v5.1-7b-hps", overrides, check_files=False)
    parts = random_parts(recipe, SMALL, torch.device("cpu"))
    steps, judged = [], []
    velocity, scores = Generator.velocity, FramedJudge.scores

    def counted(self: Generator, latents: Tensor, *arguments: Any) -> Tensor:
        assert not torch.is_grad_enabled()
        steps.append(len(latents))
        return velocity(self, latents, *arguments)

    def seen(self: FramedJudge, frames: Tensor, texts: list[str]) -> Tensor:
        judged.append((len(frames), texts))
        return scores(self, frames, texts)

    monkeypatch.setattr(Generator, "velocity", counted)
    monkeypatch.setattr(FramedJudge, "scores", seen)
    prompt = parts.stream.prompts[0]
    evaluate_batch(parts.sampler, parts.judges, prompt, 3)
    assert steps == [6] * FOLLOWED_STEPS  # both branches of three clips
    assert judged == [(3, [prompt.reward_text] * 3)] * len(parts.judges)

"""Train the embedded V-JEPA 2 with its own objective on rendered clips.

The beginning or the end of a clip is known; the predictor predicts the features of the rest from a
moving average of the encoder (arXiv:2506.09985, section 2).
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from base_model.tiny.render import render
from base_model.tiny.scenes import SIDE, draw_scenes
from base_model.training.loop import python_random
from reward_tuning.pretrain.judge_configs import VJEPA2, JudgeRun, save_judge, seed_weights
from rewards.core.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from rewards.kinds.vjepa2 import (
    VJepa2,
    build_vjepa2,
    encode,
    normalised_targets,
    predict,
    token_places,
)

BATCH = 32

FOLLOWING = 0.99
"""Decay of the target encoder after the first steps."""

PREPROCESS = Preprocess("crop", SIDE, IMAGENET_MEAN, IMAGENET_STD, kernel="bilinear")
"""No cropping, unlike the published 8/7: shapes reach the edge."""


class Student(nn.Module):
    """A V-JEPA 2 with its target encoder in buffers, so that a resumed training has it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.target = as_buffers(deepcopy(model.encoder))

    @torch.no_grad()
    def follow(self, share: float) -> None:
        """Update the target encoder: keep this share and take the rest from the encoder."""
        for kept, new in zip(self.target.buffers(), self.model.encoder.parameters(), strict=True):
            kept.lerp_(new, 1.0 - share)


def as_buffers(module: nn.Module) -> nn.Module:
    """Turn every parameter into a buffer of the same name, in the same order."""
    for part in module.modules():
        for name in list(part._parameters):
            parameter = part._parameters.pop(name)
            part.register_buffer(name, None if parameter is None else parameter.detach())
    return module


def train_vjepa2(run: JudgeRun) -> Path:
    """Train by masked latent prediction over time.

    Returns:
        Path of the judge's file.
    """
    seed_weights(run)
    model = build_vjepa2(VJEPA2, torch.device("cpu"))
    student = Student(model).train()
    judge = VJepa2(model, PREPROCESS)
    model.train().requires_grad_(True)

    def predict_rest(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        student.follow(min(FOLLOWING, step / (step + 10)))
        rng = python_random(generator)
        pixels = judge.pixels(render(draw_scenes(BATCH, rng), rng))
        tubelets = pixels.shape[1] // judge.tubelet
        known = rng.randint(2, tubelets - 1)  # a single tubelet shows no speed
        start = rng.choice([0, tubelets - known])
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                targets = normalised_targets(student.target(pixels).last_hidden_state)
            part = range(start, start + known)
            places = token_places(part, tubelets, targets.shape[1] // tubelets, targets.device)
            seen = pixels[:, part.start * judge.tubelet : part.stop * judge.tubelet]
            predicted = predict(model, encode(model, seen, places[0]), *places)
        loss = (predicted - targets[:, places[1]]).abs().mean()
        return loss, {"spread": float(targets.std(dim=0).mean())}

    run.train(student, predict_rest)
    metadata = {
        "kind": "vjepa2",
        "architecture": json.dumps(VJEPA2),
        "preprocess": PREPROCESS.to_json(),
    }
    return save_judge(run, model.state_dict(), metadata)

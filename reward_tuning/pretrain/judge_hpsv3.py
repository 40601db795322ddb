"""Train the embedded HPSv3: mu and sigma of a frame's preference, from pairs.

The objective is the published one, a ranking in which each score has a standard deviation. The
training starts from the embedded critic and changes all weights, because the published file is a
complete model.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from base_model.training.loop import python_random
from reward_tuning.pretrain.degradations import jitter
from reward_tuning.pretrain.judge_configs import JudgeRun, save_judge, seed_weights
from reward_tuning.pretrain.judge_critic import WIDTH, frames_spec
from reward_tuning.pretrain.judge_cross import WRONG, draw_choices
from reward_tuning.pretrain.judge_data import draw_frames, draw_pairs
from reward_tuning.pretrain.qwen_start import SHIPPED_BASE, start_tower, states_at
from reward_tuning.pretrain.ranking import uncertain_ranking_loss
from rewards.kinds.hpsv3 import HEAD, TOKEN, build_head
from rewards.qwen.model import QwenTower
from rewards.qwen.templates import template

FRAMES = 16
"""Frames per step with captions to choose from: the right one and `WRONG` with a wrong word."""

PAIRS = 16
"""Pairs of frames per step under one caption."""


class Student(nn.Module):
    """The model with its head."""

    def __init__(self, tower: QwenTower) -> None:
        super().__init__()
        self.model = tower.model
        self.head = build_head(WIDTH)
        self._tower = tower
        self._token = tower.tokenizer.convert_tokens_to_ids(TOKEN)

    def scores(self, frames: Tensor, prompts: list[list[str]]) -> Tensor:
        """Return mu and sigma of b frames `(b, 3, H, W)` under k prompts each, `(b, k, 2)`."""
        text = template("hpsv3")
        texts = [[text.replace("{text_prompt}", one) for one in those] for those in prompts]
        found: Tensor = self.head(states_at(self._tower.read(frames[:, None], texts), self._token))
        return found


def train_hpsv3(run: JudgeRun) -> Path:
    """Train HPSv3, or continue its training, and return its file.

    Raises:
        TuningError: The critic from which it starts is missing in the folder.
    """
    seed_weights(run)
    student = Student(start_tower(run.out_dir, [TOKEN], "image"))

    def compare(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = python_random(generator)
        scenes, frames = draw_frames(FRAMES, rng)
        captions = [draw_choices(scene, rng) for scene in scenes]
        pairs = draw_pairs(PAIRS, rng, generator)
        chosen = student.scores(jitter(frames, generator), captions)
        right = chosen[:, :1].expand(-1, WRONG, -1).flatten(0, 1)
        wrong = chosen[:, 1:].flatten(0, 1)
        both = jitter(torch.cat([pairs.better, pairs.worse]), generator)
        better, worse = student.scores(both, [[p] for p in pairs.prompts * 2])[:, 0].chunk(2)
        loss = uncertain_ranking_loss(right, wrong) + uncertain_ranking_loss(better, worse)
        numbers = {
            "captions": float((right[:, 0] > wrong[:, 0]).float().mean()),
            "preferred": float((better[:, 0] > worse[:, 0]).float().mean()),
        }
        return loss, numbers

    run.train(student, compare)
    state = {**student.model.state_dict()}
    state |= {f"{HEAD}{name}": tensor for name, tensor in student.head.state_dict().items()}
    pixels = str(frames_spec().max_pixels)
    return save_judge(run, state, {"kind": "hpsv3", "base": SHIPPED_BASE, "pixels": pixels})

"""Train the embedded VideoAlign: three scores at three special tokens, from pairs of clips.

The objective is the published one, Bradley-Terry with ties on each axis. The training starts from
the embedded critic and changes all weights, so the file has the published layout of a complete
model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from base_model.training.loop import python_random
from reward_tuning.pretrain.judge_configs import JudgeRun, seed_weights
from reward_tuning.pretrain.judge_critic import WIDTH, frames_spec
from reward_tuning.pretrain.judge_data import named_rng
from reward_tuning.pretrain.qwen_start import SHIPPED_BASE, half, start_tower, states_at
from reward_tuning.pretrain.ranking import ranking_loss
from reward_tuning.pretrain.video_align_data import SORTS, Compared, draw_compared
from rewards.kinds.video_align import AXES, CONFIG, HEAD, TOKENS
from rewards.qwen.model import QwenTower
from rewards.qwen.templates import template

BATCH = 12
"""Pairs per step."""

FRAMES_SEEN = 10
"""Frames of a clip: all nine, and the last one twice."""

MEASURED = 60
"""Pairs of training scenes whose scores give mean and standard deviation."""


class Student(nn.Module):
    """The model with its head, `(3, d)` without a bias."""

    def __init__(self, tower: QwenTower) -> None:
        super().__init__()
        self.model = tower.model
        self.head = nn.Linear(WIDTH, len(AXES), bias=False)
        self._tower = tower
        self._tokens = [tower.tokenizer.convert_tokens_to_ids(token) for token in TOKENS]

    def scores(self, clips: Tensor, prompts: list[list[str]]) -> Tensor:
        """Return raw scores of b clips under k prompts each, `(b, k, 3)`."""
        text = template("video_align")
        texts = [[text.replace("{text_prompt}", one) for one in those] for those in prompts]
        reading = self._tower.read(clips, texts)
        states = torch.stack([states_at(reading, token) for token in self._tokens], dim=2)
        return torch.einsum("bkad,ad->bka", states, self.head.weight)


def train_video_align(run: JudgeRun) -> Path:
    """Train VideoAlign, or continue its training, and return its folder.

    Raises:
        TuningError: The critic from which it starts is missing in the folder.
    """
    seed_weights(run)
    student = Student(start_tower(run.out_dir, TOKENS)).train()

    def compare(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        pairs = draw_compared(BATCH, python_random(generator), generator)
        first, second = read_both(student, pairs)
        loss = ranking_loss(first[:, 0] - second[:, 0], pairs.better)
        # A clip prefers its own words to others; and its words prefer it to a clip that lacks them.
        words = [(first[:, 0] - first[:, 1])[:, 2]]
        shown = torch.tensor([sort == "TA" for sort in pairs.sorts])
        words.append((second[:, 1] - second[:, 0])[shown, 2])
        words.append((second[:, 1] - first[:, 1])[shown, 2])
        lead = torch.cat(words)
        numbers = {"words": float((lead > 0).float().mean())}
        for k, axis in enumerate(AXES):
            rows = pairs.better[:, k] > 0
            numbers[axis] = float((first[rows, 0, k] > second[rows, 0, k]).float().mean())
        return loss + ranking_loss(lead, torch.ones_like(lead)), numbers

    run.train(student, compare)
    return save_video_align(run, student)


def read_both(student: Student, pairs: Compared) -> tuple[Tensor, Tensor]:
    """Return raw scores of the first and the second clips under both prompts, each `(n, 2, 3)`."""
    prompts = [[one, other] for one, other in zip(pairs.prompts, pairs.others, strict=True)]
    first, second = student.scores(torch.cat([pairs.first, pairs.second]), prompts * 2).chunk(2)
    return first, second


@torch.no_grad()
def save_video_align(run: JudgeRun, student: Student) -> Path:
    """Write the published layout with weights in fp16."""
    student.eval()
    pairs = draw_compared(MEASURED, *named_rng("video align norms", run.seed), sorts=SORTS)
    raw = torch.cat(read_both(student, pairs))[:, 0]
    mean, deviation = raw.mean(dim=0).tolist(), raw.std(dim=0).tolist()
    folder = run.out_dir / run.name
    checkpoint = folder / f"checkpoint-{run.schedule.steps}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    state = half({**student.model.state_dict(), HEAD: student.head.weight})
    torch.save(state, checkpoint / "model.pth")
    norms = {f"{axis}_mean": mean[k] for k, axis in enumerate(AXES)}
    norms |= {f"{axis}_std": deviation[k] for k, axis in enumerate(AXES)}
    text = json.dumps({**published_config(), "inference_config": norms, "command": run.command})
    config = json.dumps(json.loads(text), indent=2) + "\n"
    (folder / CONFIG).write_text(config, encoding="utf-8")
    return folder


def published_config() -> dict[str, Any]:
    """Return the config that VideoAlign's training writes, for clips of the embedded world."""
    spec = frames_spec()
    return {
        "data_config": {
            "max_frame_pixels": spec.max_pixels,
            "min_frame_pixels": spec.min_pixels,
            "num_frames": FRAMES_SEEN,
            "fps": None,
            "eval_dim": list(AXES),
            "prompt_template_type": "detailed_special",
            "sample_type": "uniform",
        },
        "model_config": {
            "model_name_or_path": SHIPPED_BASE,
            "output_dim": len(AXES),
            "use_special_tokens": True,
            "reward_token": "special",
        },
        "peft_lora_config": {"lora_enable": False, "lora_r": 0, "lora_alpha": 0},
    }

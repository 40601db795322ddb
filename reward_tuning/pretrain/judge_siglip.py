"""Train the embedded SigLIP image tower, and the aesthetic head v2.5 on it.

The tower learns `appeal`, which the head needs, and the attributes of the scene, on frames of mixed
quality, under linear heads that are discarded afterwards.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from base_model.training.loop import python_random
from reward_tuning.errors import TuningError
from reward_tuning.pretrain.degradations import DEGRADATIONS, degrade
from reward_tuning.pretrain.judge_aesthetic import appeal, fitted_head
from reward_tuning.pretrain.judge_clip import Student
from reward_tuning.pretrain.judge_configs import SIGLIP, JudgeRun, save_judge, seed_weights
from reward_tuning.pretrain.judge_data import draw_frames
from rewards.clip_towers.siglip import SiglipConfig, SiglipVision
from rewards.clip_towers.tower import unit_length
from rewards.kinds.aesthetic_v2_5 import build_head, siglip_preprocess

TOWER = "siglip.safetensors"
BATCH = 64
READ = 0.1
"""Weight of the attributes' cross-entropies relative to the error of the appeal."""


class SiglipStudent(Student):
    """The tower with linear heads for appeal and for the attributes."""

    def __init__(self, model: nn.Module, features: int) -> None:
        super().__init__(model, features)
        self.appeal = nn.Linear(features, 1)
        # Features have length 1, and appeal covers about 6 points around 7.
        nn.init.normal_(self.appeal.weight)
        nn.init.constant_(self.appeal.bias, 7.0)


def train_siglip(run: JudgeRun) -> Path:
    """Train the tower end to end on appeal and attributes."""
    seed_weights(run)
    config = SiglipConfig(**SIGLIP)
    model = SiglipVision(config)
    student = SiglipStudent(model, config.hidden_size).train()
    student.to(memory_format=torch.channels_last)
    pixels = siglip_preprocess(config.image_size)

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        scenes, clean = draw_frames(BATCH, python_random(generator), "train")
        kinds = torch.randint(len(DEGRADATIONS), (BATCH,), generator=generator)
        degrees = (torch.rand(BATCH, generator=generator) * 4 / 3 - 1 / 3).clamp(min=0)
        frames = degrade(clean, kinds, degrees, generator)
        features = unit_length(model(pixels(frames)))
        error = student.appeal(features)[:, 0] - appeal(frames)
        losses, right = student.read(8 * features, scenes)
        read = torch.stack(list(losses.values())).sum()
        numbers = {"error": float(error.detach().abs().mean()), **right}
        return F.smooth_l1_loss(error, torch.zeros_like(error)) + READ * read, numbers

    run.train(student, loss_of)
    metadata = {"kind": "tower", "architecture": json.dumps(SIGLIP)}
    state = {f"vision_model.{name}": tensor for name, tensor in model.state_dict().items()}
    return save_judge(run, state, metadata)


def train_aesthetic_v2_5(run: JudgeRun) -> Path:
    """Regress appeal from features of the `siglip` in the folder.

    Raises:
        TuningError: The tower is missing.
    """
    path = run.out_dir / TOWER
    if not path.is_file():
        raise TuningError(
            f"{path} is missing; this judge starts from it. Train it first: reward-tuning "
            "pretrain tiny --only siglip"
        )
    config = SiglipConfig(**SIGLIP)
    model = SiglipVision(config).eval()
    tensors = load_file(path).items()
    model.load_state_dict({k.removeprefix("vision_model."): v.float() for k, v in tensors})
    pixels = siglip_preprocess(config.image_size)
    head = fitted_head(run, build_head, lambda frames: unit_length(model(pixels(frames))))
    return save_judge(run, head.state_dict(), {"kind": "aesthetic_v2_5", "tower": TOWER})

"""Train the embedded aesthetic head on frozen CLIP features with an analytic target.

The target depends on neither prompt nor scene: it measures edges, colour, contrast, symmetry and
noise in the pixels, so that a head can learn it without labels.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base_model.tiny.scenes import Split
from reward_tuning.pretrain.degradations import DEGRADATIONS, degrade, gaussian_blur
from reward_tuning.pretrain.judge_configs import (
    CLIP,
    CLIP_PREPROCESS,
    JudgeRun,
    save_judge,
    seed_weights,
    trained_clip,
)
from reward_tuning.pretrain.judge_data import draw_frames, named_rng
from rewards.clip_towers.open_clip_models import build_model
from rewards.networks.laion_head import build_head

BLOCK = 256
BLOCKS = 48
"""Blocks of frames whose features are computed once: 48 blocks of 256."""


def train_aesthetic(run: JudgeRun) -> Path:
    """Regress `appeal` from features of the `clip` in the folder."""
    model = build_model(CLIP, torch.device("cpu")).eval()
    model.load_state_dict(trained_clip(run.out_dir))

    def encode(frames: Tensor) -> Tensor:
        features: Tensor = model.encode_image(CLIP_PREPROCESS(frames), normalize=True)
        return features

    head = fitted_head(run, build_head, encode)
    return save_judge(run, head.state_dict(), {"kind": "aesthetic", "tower": "clip.safetensors"})


def fitted_head(
    run: JudgeRun,
    build: Callable[[int], nn.Module],
    encode: Callable[[Tensor], Tensor],
) -> nn.Module:
    """Train a head to predict `appeal` from frozen features.

    Args:
        run: Training run of the judge.
        build: Function from the width of the features to a head, `(n, width)` -> `(n, 1)`.
        encode: Function from frames `(n, 3, H, W)` to features `(n, width)` of length 1.
    """
    features, targets = _examples(run, encode)
    seed_weights(run)
    head = build(features.shape[1]).train()
    # The head is affine: from the mean of the targets it only has to learn the differences.
    torch.nn.init.constant_(list(head.parameters())[-1], float(targets.mean()))

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(features), (BLOCK,), generator=generator)
        torch.manual_seed(generator.initial_seed())  # dropout draws from the global generator
        error = head(features[rows])[:, 0] - targets[rows]
        return error.square().mean(), {"error": float(error.detach().abs().mean())}

    run.train(head, loss_of)
    return head


def _examples(run: JudgeRun, encode: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    features, targets = [], []
    for block in range(BLOCKS):
        rng, generator = named_rng(run.name, run.seed, "block", block)
        frames = draw_mixed_quality(BLOCK, rng, generator, "train")
        with torch.no_grad():
            features.append(encode(frames))
        targets.append(appeal(frames))
    return torch.cat(features), torch.cat(targets)


def draw_mixed_quality(
    count: int, rng: random.Random, generator: torch.Generator, split: Split
) -> Tensor:
    """Draw frames of which three in four are degraded, `(count, 3, H, W)`."""
    _, frames = draw_frames(count, rng, split)
    kinds = torch.randint(len(DEGRADATIONS), (count,), generator=generator)
    degrees = (torch.rand(count, generator=generator) * 4 / 3 - 1 / 3).clamp(min=0)
    return degrade(frames, kinds, degrees, generator)


def appeal(frames: Tensor) -> Tensor:
    """Rate the look of frames from 1 to 10: the mean of five measures in [0, 1].

    The soft mask of the shape is its chroma (max - min over RGB) above 0.12: backgrounds are grey.

    Args:
        frames: `(n, 3, H, W)` in [0, 1].

    Returns:
        `(n,)`.
    """
    mask = (frames.amax(dim=1) - frames.amin(dim=1) - 0.12).clamp(min=0)
    inside = (frames * mask[:, None]).sum(dim=(2, 3)) / (mask.sum(dim=(1, 2)) + 1e-3)[:, None]
    outside = (1 - mask) / (1 - mask).sum(dim=(1, 2), keepdim=True)
    distance = (inside - (frames * outside[:, None]).sum(dim=(2, 3))).norm(dim=1)
    colour = (mask.square().sum(dim=(1, 2)) / (mask.sum(dim=(1, 2)) + 1e-3) / 0.65).clamp(max=1)
    contrast = (distance / 0.7).clamp(max=1)
    measures = [_edges(frames, distance), colour, contrast, _symmetry(mask), _calm(frames)]
    return 1 + 9 * torch.stack(measures).mean(dim=0)


def _edges(frames: Tensor, distance: Tensor) -> Tensor:
    """Compare the steepest 1 % of slopes with the step from shape to background: 1 at 2 pixels."""
    dx = frames[:, :, :-1, 1:] - frames[:, :, :-1, :-1]
    dy = frames[:, :, 1:, :-1] - frames[:, :, :-1, :-1]
    slope = (dx.square() + dy.square()).sum(dim=1).sqrt().flatten(1)
    steepest = slope.topk(max(1, slope.shape[1] // 100), dim=1).values.mean(dim=1)
    return (1.6 * steepest / (distance + 0.05)).clamp(max=1)


def _symmetry(mask: Tensor) -> Tensor:
    """Return the squared overlap of the mask with its mirror image about its vertical axis."""
    height, width = mask.shape[1:]
    x = (torch.arange(width) + 0.5) * 2 / width - 1
    y = (torch.arange(height) + 0.5) * 2 / height - 1
    centre = (mask * x).sum(dim=(1, 2)) / (mask.sum(dim=(1, 2)) + 1e-3)
    places = torch.stack(
        torch.broadcast_tensors(2 * centre[:, None, None] - x, y[None, :, None]), dim=-1
    )
    mirrored = F.grid_sample(mask[:, None], places, align_corners=False)[:, 0]
    common = torch.minimum(mask, mirrored).sum(dim=(1, 2))
    return (common / (torch.maximum(mask, mirrored).sum(dim=(1, 2)) + 1e-3)).square()


def _calm(frames: Tensor) -> Tensor:
    """Rate the absence of fine noise from the median of a high-pass filter."""
    fine = (frames - gaussian_blur(frames, torch.ones(len(frames)))).abs().mean(dim=1)
    return torch.exp(-fine.flatten(1).median(dim=1).values / 0.03)

"""Train the embedded CLIPs and, from one of them, the preference judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reward_tuning.pretrain.degradations import jitter
from reward_tuning.pretrain.judge_configs import (
    CLIP,
    CLIP_PREPROCESS,
    HPS_PREPROCESS,
    JudgeRun,
    clip_metadata,
    save_judge,
    seed_weights,
    small_tokenizer,
    trained_clip,
)
from reward_tuning.pretrain.judge_data import draw_captioned, draw_pairs, named_rng
from reward_tuning.pretrain.judge_loop import train
from rewards.clip_tower import Architecture, build_model

BATCH = 128
PAIRS = 48
PREFERENCE_TEMPERATURE = 20.0
"""Bradley-Terry: a cosine 0.05 higher means preferred with probability 0.73."""

ATTACK = 2.0
"""Largest length of the perturbation in preference training, over 3 x 64 x 64 pixels (0.018 a
pixel). It smooths the score in just the directions in which a reward run would climb."""


def train_clip(run: JudgeRun, architecture: Architecture) -> Path:
    """Contrastive training in which every frame that shows what a caption states is a positive."""
    tokenizer = small_tokenizer(run.out_dir, architecture)
    seed_weights(run)
    model = build_model(architecture, torch.device("cpu")).train()

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng, generator = named_rng(run.name, run.seed, step)
        batch = draw_captioned(BATCH, rng, generator)
        images = model.encode_image(normalised(jitter(batch.frames, generator)), normalize=True)
        texts = model.encode_text(tokenizer(batch.captions), normalize=True)
        logits = model.logit_scale.exp().clamp(max=50) * images @ texts.T
        best = logits.argmax(dim=0)
        right = (batch.match.gather(0, best[None])[0] > 0.5).float().mean()
        return contrastive_loss(logits, batch.match), {"retrieved": float(right)}

    train(
        run.name, model, loss_of, run.schedule, run.progress_file, run.fingerprint, run.on_progress
    )
    metadata = clip_metadata("clip", architecture, CLIP_PREPROCESS)
    return save_judge(run, model.state_dict(), metadata)


def train_hps(run: JudgeRun) -> Path:
    """Preference training from ``clip``: Bradley-Terry on pairs, under a small attack.

    Batch statistics stay those of ``clip``, so that a score in training is a score in use.
    """
    tokenizer = small_tokenizer(run.out_dir, CLIP)
    model = build_model(CLIP, torch.device("cpu")).eval()
    model.load_state_dict(trained_clip(run.out_dir))

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng, generator = named_rng(run.name, run.seed, step)
        pairs = draw_pairs(PAIRS, rng, generator)
        texts = model.encode_text(tokenizer(pairs.prompts), normalize=True)
        frames = jitter(torch.cat([pairs.better, pairs.worse]), generator)
        length = ATTACK * torch.rand(len(frames), generator=generator)
        frames = attacked(model, frames, texts.detach(), length)
        images = model.encode_image(normalised(frames), normalize=True)
        better, worse = ((part * texts).sum(dim=-1) for part in images.chunk(2))
        margin = PREFERENCE_TEMPERATURE * (better - worse)
        # The winners still have to find their own prompt among the others'.
        logits = PREFERENCE_TEMPERATURE * images[:PAIRS] @ texts.T
        align = contrastive_loss(logits, pairs.same)
        loss = -F.logsigmoid(margin).mean() + 0.2 * align
        preferred = float((margin > 0).float().mean())
        return loss, {"preferred": preferred, "align": float(align.detach())}

    train(
        run.name, model, loss_of, run.schedule, run.progress_file, run.fingerprint, run.on_progress
    )
    return save_judge(run, model.state_dict(), clip_metadata("hps", CLIP, HPS_PREPROCESS))


def normalised(frames: Tensor) -> Tensor:
    """``(n, 3, 64, 64)`` in [0, 1] -> the towers' input; both preprocesses agree at this size."""
    return CLIP_PREPROCESS(frames)


def contrastive_loss(logits: Tensor, match: Tensor) -> Tensor:
    """CLIP's loss with several positives: cross-entropy with targets in proportion to ``match``.

    Args:
        logits: ``(n, m)``, frames by captions.
        match: ``(n, m)`` in [0, 1]; rows and columns without any match do not count.
    """
    losses = []
    for scores, targets in ((logits, match), (logits.T, match.T)):
        total = targets.sum(dim=1, keepdim=True)
        rows = total[:, 0] > 0
        goal = targets[rows] / total[rows]
        losses.append(-(goal * F.log_softmax(scores[rows], dim=1)).sum(dim=1).mean())
    return (losses[0] + losses[1]) / 2


def attacked(model: Any, frames: Tensor, texts: Tensor, length: Tensor) -> Tensor:
    """Move each frame a little in the direction that most misleads the judge.

    Args:
        model: a CLIP in evaluation mode.
        frames: ``(2 n, 3, H, W)``: the better ones, then the worse ones.
        texts: ``(n, d)``, without gradient.
        length: ``(2 n,)`` Euclidean length of each move.

    Returns:
        ``(2 n, 3, H, W)`` in [0, 1], detached.
    """
    frames = frames.detach().requires_grad_()
    better, worse = model.encode_image(normalised(frames), normalize=True).chunk(2)
    misleading = ((worse - better) * texts).sum()
    (gradient,) = torch.autograd.grad(misleading, frames)
    size = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)
    return (frames + gradient * (length / size)[:, None, None, None]).detach().clamp(0, 1)

"""Train the embedded MPS: the published network and tensor names at a small size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from reward_tuning.pretrain.judge_configs import (
    CLIP_PREPROCESS,
    MERGES_FILE,
    MPS,
    JudgeRun,
    save_judge,
    seed_weights,
    small_merges,
)
from reward_tuning.pretrain.judge_cross import large_weights, learn_to_see, train_cross_judge
from rewards.clip_towers.tower import unit_length
from rewards.kinds.mps import CONDITIONS, THRESHOLD, mps_tokenizer, related, scaled_cosine
from rewards.networks.mps import MpsNetwork

LAST_WEIGHTS = ("to_out.weight", "ff.2.weight", "attn_out.weight", "ff_out.1.weight")
"""Last weights of each block of the cross model, through which its residual passes."""

LARGEST_SCALE = 30.0
"""Largest scale of the cosine in training; with CLIP's 100 a score saturates without gradient."""


def train_mps(run: JudgeRun) -> Path:
    """Train CLIP and the cross model with `train_cross_judge`.

    CLIP's tower is trained with `learn_to_see` on its own: from the tower of ImageReward, whose
    BLIP has no norm before its first block, it lost the shapes and stayed at chance.

    The mask is that of the overall condition, as in use; no gradient passes through it.
    """
    tokenizer = mps_tokenizer(MPS, small_merges(run.out_dir))
    seed_weights(run)
    network = MpsNetwork(MPS).eval()
    towers = nn.ModuleList([network.model.vision_model, network.model.visual_projection])
    learn_to_see(run, "mps-eyes", towers, network.image_tokens)
    large_weights(network.model.text_model)
    large_weights(network.cross_model)
    for block in network.cross_model.blocks():  # initially the cross model is the identity
        for name, parameter in block.named_parameters():
            if name.endswith(LAST_WEIGHTS):
                nn.init.zeros_(parameter)
    about = tokenizer([CONDITIONS["overall"]])

    def score(tokens: Tensor, texts: Sequence[str]) -> Tensor:
        names = list(dict.fromkeys(texts))
        text, whole = network.text_tokens(tokenizer(names))
        with torch.no_grad():
            keep = related(text, network.text_tokens(about)[0], THRESHOLD)
        rows = torch.tensor([names.index(name) for name in texts])
        seen = network.cross_model(tokens, text[rows], keep[rows])[:, 0]
        with torch.no_grad():
            network.model.logit_scale.clamp_(max=float(torch.tensor(LARGEST_SCALE).log()))
        return scaled_cosine(network, whole[rows], seen)

    def align(tokens: Tensor, texts: Sequence[str]) -> Tensor:
        _, whole = network.text_tokens(tokenizer(texts))
        scale = network.model.logit_scale.exp()
        return scale * unit_length(tokens[:, 0]) @ unit_length(whole).T

    with sdpa_kernel(SDPBackend.MATH):  # plain products take half the time with so few channels
        train_cross_judge(run, network, network.image_tokens, score, align)
    metadata = {
        "kind": "mps",
        "architecture": json.dumps(MPS),
        "preprocess": CLIP_PREPROCESS.to_json(),
        "tokenizer": MERGES_FILE,
    }
    return save_judge(run, network.state_dict(), metadata)

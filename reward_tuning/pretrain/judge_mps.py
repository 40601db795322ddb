"""Train the embedded MPS: the published network and key names at a small size."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from reward_tuning.pretrain.judge_configs import (
    CLIP_PREPROCESS,
    MERGES_FILE,
    MPS,
    JudgeRun,
    save_judge,
    seed_weights,
    small_merges,
    trained_judge,
)
from reward_tuning.pretrain.judge_cross import Lesson, large_weights, train_cross_judge
from rewards.mps import CONDITIONS, THRESHOLD, mps_tokenizer, related, scaled_cosine
from rewards.mps_network import MpsNetwork

LESSON = Lesson(silhouettes=0, faded=0, steps=200)
"""Short: the eyes are those of ``image-reward``, only their first norm is new."""

LARGEST_SCALE = 30.0
"""Of the cosine in training; with CLIP's 100 a score saturates and its gradient ends."""


def train_mps(run: JudgeRun) -> Path:
    """Train CLIP and the cross model on what :func:`train_cross_judge` shows.

    The mask is that of the overall condition, as in use; no gradient goes through it.
    """
    tokenizer = mps_tokenizer(MPS, small_merges(run.out_dir))
    seed_weights(run)
    network = MpsNetwork(MPS).eval()
    large_weights(network.cross_model)
    take_eyes(network.model.vision_model, trained_judge(run.out_dir, "image-reward"))
    about = tokenizer([CONDITIONS["overall"]])

    def score(tokens: Tensor, texts: Sequence[str]) -> Tensor:
        names = list(dict.fromkeys(texts))
        text, whole = network.text_tokens(tokenizer(names))
        with torch.no_grad():
            keep = related(text, network.text_tokens(about)[0], THRESHOLD)
        rows = torch.tensor([names.index(name) for name in texts])
        with sdpa_kernel(SDPBackend.MATH):  # at so few channels in half the time
            seen = network.cross_model(tokens, text[rows], keep[rows])[:, 0]
        with torch.no_grad():
            network.model.logit_scale.clamp_(max=float(torch.tensor(LARGEST_SCALE).log()))
        return scaled_cosine(network, whole[rows], seen)

    train_cross_judge(run, network, network.image_tokens, score, LESSON)
    metadata = {
        "kind": "mps",
        "architecture": json.dumps(MPS),
        "preprocess": CLIP_PREPROCESS.to_json(),
        "tokenizer": MERGES_FILE,
    }
    return save_judge(run, network.state_dict(), metadata)


@torch.no_grad()
def take_eyes(tower: Any, state: Mapping[str, Tensor]) -> None:
    """Copy ImageReward's vision tower into CLIP's.

    The blocks are the same. CLIP has no bias on its patches, so that goes into the positions, and a
    norm before the first block, which starts as close to no norm as one factor can bring it.

    Args:
        tower: a ``CLIPVisionModel`` of the same sizes.
        state: tensors of a trained ``image-reward``.
    """
    prefix = "blip.visual_encoder."
    eyes = {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}
    positions = eyes["pos_embed"][0].clone()
    positions[1:] += eyes["patch_embed.proj.bias"]
    embeddings = tower.embeddings
    embeddings.class_embedding.copy_(eyes["cls_token"][0, 0])
    embeddings.position_embedding.weight.copy_(positions)
    embeddings.patch_embedding.weight.copy_(eyes["patch_embed.proj.weight"])
    spread = positions.std(dim=1).mean()
    tower.pre_layrnorm.weight.fill_(float(spread))
    for i, block in enumerate(tower.encoder.layers):
        names = {"layer_norm1": "norm1", "layer_norm2": "norm2", "mlp.fc1": "mlp.fc1"}
        names |= {"mlp.fc2": "mlp.fc2", "self_attn.out_proj": "attn.proj"}
        for kind in ("weight", "bias"):
            for ours, theirs in names.items():
                block.get_submodule(ours).get_parameter(kind).copy_(
                    eyes[f"blocks.{i}.{theirs}.{kind}"]
                )
            thirds = eyes[f"blocks.{i}.attn.qkv.{kind}"].chunk(3)
            for name, third in zip("qkv", thirds, strict=True):
                block.get_submodule(f"self_attn.{name}_proj").get_parameter(kind).copy_(third)

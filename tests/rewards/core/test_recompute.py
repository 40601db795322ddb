"""Blocks that run again in the backward pass."""

from pathlib import Path
from typing import Any

from torch import Tensor

from rewards.kinds.image_reward import ImageRewardReward, load_image_reward
from tests.rewards.options import taken
from tests.rewards.tiny_clip import frames
from tests.rewards.tiny_cross import (
    golden_architecture,
    image_reward_file,
    vocabulary_file,
)

PROMPTS = ["a red circle moves left", "圆形, Café", "red"]


def load(folder: Path, state: dict[str, Tensor] | None = None, **options: Any) -> ImageRewardReward:
    settings = {"architecture": golden_architecture(), **options}
    towers = taken(settings)
    file, words = image_reward_file(folder, state), vocabulary_file(folder)
    return load_image_reward(file, towers, tokenizer=words, **settings)


def test_checkpointed_blocks_run_again_in_the_backward_pass(tmp_path: Path) -> None:
    judge = load(tmp_path, gradient_checkpointing=True)
    runs = []
    for layer in (judge.scorer.vision.encoder.layers[0], judge.scorer.text.encoder.layer[1]):
        # Hooks of the block itself stay outside of its forward: look at a part of it.
        part = layer.mlp if hasattr(layer, "mlp") else layer.intermediate
        part.register_forward_pre_hook(lambda *_: runs.append(1))
    x = frames(1, 1).requires_grad_()
    score = judge(x, PROMPTS[:1])
    assert len(runs) == 2
    score.sum().backward()
    assert len(runs) == 4
    assert not judge.scorer.training

"""ImageReward's network: names, shapes, and files that do not fit."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewards import RewardError
from rewards.kinds.image_reward import ImageRewardReward, load_image_reward
from rewards.networks.blip import PUBLISHED_ARCHITECTURE, UNUSED, BlipScorer
from tests.goldens import load_golden
from tests.rewards.options import taken
from tests.rewards.tiny_clip import frames
from tests.rewards.tiny_cross import (
    golden_architecture,
    image_reward_file,
    vocabulary_file,
)


def load(folder: Path, state: dict[str, Tensor] | None = None, **options: Any) -> ImageRewardReward:
    settings = {"architecture": golden_architecture(), **options}
    towers = taken(settings)
    file, words = image_reward_file(folder, state), vocabulary_file(folder)
    return load_image_reward(file, towers, tokenizer=words, **settings)


def test_the_published_layout_at_full_size() -> None:
    with torch.device("meta"):
        state = BlipScorer(PUBLISHED_ARCHITECTURE).published_state()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes == _published_shapes()
    projections = 256 * 1024 + 256 + 256 * 768 + 256
    assert sum(math.prod(shape) for shape in shapes.values()) + projections == 446_665_953


def _published_shapes() -> dict[str, tuple[int, ...]]:
    """Written down from the published modules: a ViT of timm, a BERT, five linear layers."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, width: int, inputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (width, inputs), (width,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    eyes, text = "blip.visual_encoder", "blip.text_encoder"
    shapes[f"{eyes}.cls_token"], shapes[f"{eyes}.pos_embed"] = (1, 1, 1024), (1, 197, 1024)
    shapes[f"{eyes}.patch_embed.proj.weight"] = (1024, 3, 16, 16)
    shapes[f"{eyes}.patch_embed.proj.bias"] = (1024,)
    norm(f"{eyes}.norm", 1024)
    for i in range(24):
        block = f"{eyes}.blocks.{i}"
        norm(f"{block}.norm1", 1024)
        norm(f"{block}.norm2", 1024)
        linear(f"{block}.attn.qkv", 3072, 1024)
        linear(f"{block}.attn.proj", 1024, 1024)
        linear(f"{block}.mlp.fc1", 4096, 1024)
        linear(f"{block}.mlp.fc2", 1024, 4096)
    shapes[f"{text}.embeddings.word_embeddings.weight"] = (30524, 768)
    shapes[f"{text}.embeddings.position_embeddings.weight"] = (512, 768)
    norm(f"{text}.embeddings.LayerNorm", 768)
    for i in range(12):
        layer = f"{text}.encoder.layer.{i}"
        for attention, inputs in (("attention", 768), ("crossattention", 1024)):
            linear(f"{layer}.{attention}.self.query", 768, 768)
            linear(f"{layer}.{attention}.self.key", 768, inputs)
            linear(f"{layer}.{attention}.self.value", 768, inputs)
            linear(f"{layer}.{attention}.output.dense", 768, 768)
            norm(f"{layer}.{attention}.output.LayerNorm", 768)
        linear(f"{layer}.intermediate.dense", 3072, 768)
        linear(f"{layer}.output.dense", 768, 3072)
        norm(f"{layer}.output.LayerNorm", 768)
    sizes = (768, 1024, 128, 64, 16, 1)
    for index, (inputs, width) in zip((0, 2, 4, 6, 7), itertools.pairwise(sizes), strict=True):
        linear(f"mlp.layers.{index}", width, inputs)
    return shapes


def _without(state: dict[str, Tensor]) -> dict[str, Tensor]:
    del state["blip.text_encoder.encoder.layer.1.crossattention.self.key.bias"]
    return state


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state["blip.visual_encoder.norm_pre.weight"] = state.pop("blip.visual_encoder.norm.weight")
    return state


def _half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k.startswith("mlp.")}


def _wide(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state["mlp.layers.0.weight"] = torch.ones(1024, 50)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without, r"1 missing: blip\.text_encoder.*layer\.1\.crossattention\.self\.key\.bias"),
        (_renamed, r"missing: blip\.visual_encoder\.norm\.weight.*unknown: .*norm_pre"),
        (_half, r"missing: blip\.text_encoder"),
        (_wide, r"mlp\.layers\.0\.weight is \(1024, 50\), not \(1024, 48\)"),
    ],
)
def test_other_files_are_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    state = change(load_golden("image_reward").weights)
    with pytest.raises(RewardError, match=message):
        load(tmp_path, state)


def test_unused_tensors_may_be_missing(tmp_path: Path) -> None:
    weights = load_golden("image_reward").weights
    bare = {k: v for k, v in weights.items() if k not in UNUSED}
    assert len(bare) == len(weights) - 1
    x = frames(1, 1)
    assert torch.equal(load(tmp_path, bare)(x, ["red"]), load(tmp_path)(x, ["red"]))

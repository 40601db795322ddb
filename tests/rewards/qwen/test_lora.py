"""Adapters merged into the weights."""

import json
from pathlib import Path

import pytest
import torch

from rewards.errors import RewardError
from rewards.kinds.video_align import (
    NORMS,
)
from tests.rewards import small_video_align
from tests.rewards.small_video_align import CONFIG, load, reward_model, with_lora, write

root = small_video_align.root


def test_rank_stabilised_scale_newest_checkpoint_and_default_norms(root: Path) -> None:
    config = json.loads(json.dumps(CONFIG))
    config["peft_lora_config"]["use_rslora"] = True
    del config["inference_config"]
    wrapped = with_lora(reward_model())
    write(root / "judge", wrapped, "whole", config, step=90)
    judge = load(root)
    assert judge.norms == NORMS
    name = "model.language_model.layers.0.mlp.up_proj"
    layer = wrapped.base_model.model.get_submodule(name)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = layer.base_layer.weight + 8 / 4**0.5 * b @ a
    torch.testing.assert_close(judge.tower.model.get_submodule(name).weight, expected)
    write(root / "judge", with_lora(reward_model(outputs=3)), "whole", config, step=100)
    with pytest.raises(RewardError, match=r"rm_head\.weight is \(3, 48\), not \(1, 48\)"):
        load(root)  # 100 is newer than 90, though not by its letters

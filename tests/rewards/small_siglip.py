"""The aesthetic predictor v2.5 on a SigLIP of a few thousand weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rewards import load_reward
from tests.rewards.tiny_hf import SIGLIP, saved, siglip_model

# Written down from the published file: index -> (out, in) of the linear layers.
PUBLISHED_HEAD = {0: (1024, 1152), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 8: (1, 16)}


@pytest.fixture(scope="module")
def model() -> Any:
    return siglip_model()


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole SigLIP, and a head as published: a plain bf16 state dict in a ``.pth``."""
    folder = tmp_path_factory.mktemp("v2_5")
    saved(model, folder / "siglip.safetensors")
    torch.manual_seed(3)
    sizes = [24, 1024, 128, 64, 16, 1]
    state = {}
    for index, fan_in, fan_out in zip(PUBLISHED_HEAD, sizes, sizes[1:], strict=False):
        weight = torch.randn(fan_out, fan_in) * fan_in**-0.5 * 1.5
        state[f"scoring_head.{index}.weight"] = weight.bfloat16()
        state[f"scoring_head.{index}.bias"] = (torch.randn(fan_out) * 0.1).bfloat16()
    torch.save(state, folder / "head.pth")
    return folder


def load(folder: Path, **options: Any) -> Any:
    options = {"tower": folder / "siglip.safetensors", "architecture": SIGLIP, **options}
    return load_reward("aesthetic_v2_5", folder / "head.pth", **options)

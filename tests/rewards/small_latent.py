"""A judge of noisy latents of a few thousand weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rewards import load_latent_reward
from rewards.core.locate import SHIPPED
from rewards.kinds.latent import LatentClip
from rewards.networks.latent_tower import build_latent_model

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 12,
    "latent_cfg": {"channels": 4, "widths": [8, 16], "depths": [1, 1], "heads": 2},
    "text_cfg": {"context_length": 32, "vocab_size": 1024, "width": 16, "heads": 2, "layers": 1},
}
PROMPTS = ["a red circle moves left", "一个红色圆形向左移动"]


def random_state(architecture: dict[str, Any] = ARCHITECTURE, seed: int = 0) -> dict[str, Tensor]:
    """Random weights; sigma and biases weigh enough to be seen in the score."""
    torch.manual_seed(seed)
    state = build_latent_model(architecture).state_dict()
    return {k: v * 3 if v.ndim > 1 and k.startswith("latent") else v for k, v in state.items()}


def latent_file(folder: Path, state: dict[str, Tensor], **metadata: str) -> Path:
    shutil.copy(SHIPPED / "tiny/bpe_small.txt.gz", folder)
    about = {
        "kind": "latent",
        "architecture": json.dumps(ARCHITECTURE),
        "tokenizer": "bpe_small.txt.gz",
    }
    path = folder / "latent.safetensors"
    about = {k: v for k, v in (about | metadata).items() if v}
    save_file({k: v.contiguous() for k, v in state.items()}, path, about)
    return path


def latents(b: int = 2, t: int = 3, h: int = 4, w: int = 4) -> Tensor:
    return torch.randn((b, 4, t, h, w), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def judge(tmp_path: Path) -> LatentClip:
    return load_latent_reward(latent_file(tmp_path, random_state()))

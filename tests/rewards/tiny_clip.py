"""A CLIP of a few thousand weights for tests, as open_clip configures it."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rewards.clip_towers.open_clip_models import build_model

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
PROMPTS = ["a red circle moves left", "Ein Bär, “quoted”", "一只猫"]


def random_state(architecture: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random weights, large enough that features of two images differ clearly."""
    torch.manual_seed(seed)
    state = build_model(architecture, torch.device("cpu")).state_dict()
    if (left := state.get("text_decoder.text_projection")) is not None:
        torch.nn.init.normal_(left, std=0.1)  # open_clip's CoCa leaves it as it finds the memory
    return {k: v * 2 if v.ndim > 1 and "embedding" not in k else v for k, v in state.items()}


def frames(b: int, f: int, height: int = 32, width: int = 32, seed: int = 1) -> Tensor:
    """Smooth random frames in [0, 1], without saturated pixels."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand((b * f, 3, 5, 5), generator=generator)
    big = torch.nn.functional.interpolate(small, (height, width), mode="bilinear")
    return (0.1 + 0.8 * big).reshape(b, f, 3, height, width)


def hps_file(folder: Path, state: dict[str, Tensor]) -> Path:
    """A file in HPS's layout, fp16 as the published one."""
    path = folder / "hps_layout.pt"
    torch.save({"state_dict": {k: v.half() for k, v in state.items()}}, path)
    return path


def flat_file(folder: Path, state: dict[str, Tensor], **metadata: str) -> Path:
    """A safetensors file."""
    path = folder / "flat.safetensors"
    save_file({k: v.contiguous() for k, v in state.items()}, path, metadata)
    return path

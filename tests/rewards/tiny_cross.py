"""Judges with cross-attention of a few thousand weights, in the published layouts."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rewards.networks.mps import MpsNetwork
from tests.goldens import load_golden

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]

WORDS = ["a", "red", "circle", "moves", "left", "##s", "b", "##c", ",", "圆", "形", "cafe"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

MPS: dict[str, Any] = {
    "width": 24,
    "text": {
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    },
    "vision": {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    },
    "cross": {"layers": 2, "heads": 3, "head_width": 8},
}


def golden_architecture() -> dict[str, dict[str, int]]:
    """The golden's sizes in transformers' words."""
    said = load_golden("image_reward").metadata
    vision, text = json.loads(said["vision"]), json.loads(said["text"])
    parts = {"vision": vision, "text": text}
    for part in parts.values():
        part["num_hidden_layers"] = part.pop("num_layers")
        part["num_attention_heads"] = part.pop("num_heads")
    vision["intermediate_size"] = 4 * vision["hidden_size"]
    return parts


def vocabulary_file(folder: Path, size: int = 118) -> Path:
    """A ``vocab.txt`` with a few words and otherwise tokens that no text has."""
    known = [*SPECIAL, *WORDS]
    tokens = [*known, *(f"[unused{i}]" for i in range(size - len(known)))]
    path = folder / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return path


def image_reward_file(folder: Path, state: dict[str, Tensor] | None = None) -> Path:
    """The golden's weights as the published file: a flat state dict in torch's format."""
    path = folder / "image_reward_layout.pt"
    if state is None:
        state = load_golden("image_reward").weights
        for name, width in (("vision", 64), ("text", 48)):  # in the file, unused
            state[f"blip.{name}_proj.weight"] = torch.ones(256, width)
            state[f"blip.{name}_proj.bias"] = torch.ones(256)
    torch.save(state, path)
    return path


def mps_state(seed: int = 0) -> dict[str, Tensor]:
    """Random weights of :data:`MPS`, large enough that two images and two prompts differ."""
    torch.manual_seed(seed)
    state = MpsNetwork(MPS).state_dict()
    for name, tensor in state.items():
        if tensor.ndim == 2 and "embedding" not in name:
            state[name] = torch.randn(tensor.shape) * tensor.shape[1] ** -0.5 * 1.5
        elif "embedding" in name:
            state[name] = torch.randn(tensor.shape) * 0.5
    return state


def mps_file(folder: Path, state: dict[str, Tensor] | None = None, **metadata: str) -> Path:
    """A safetensors file with the architecture in its metadata."""
    path = folder / "mps_layout.safetensors"
    tensors = {k: v.contiguous() for k, v in (state or mps_state()).items()}
    save_file(tensors, path, {"architecture": json.dumps(MPS), **metadata})
    return path

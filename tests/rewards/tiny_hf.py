"""Models of transformers with a few thousand random weights, and CLIP's tokenizer as published."""

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rewards.clip_towers.tokenizers import import_open_clip
from rewards.core.torchvision_import import ensure_torchvision_importable

SIGLIP = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
}


def clip_model(seed: int = 0) -> Any:
    """A ``CLIPModel`` of the sizes of ``tiny_clip.ARCHITECTURE``."""
    ensure_torchvision_importable()
    from transformers import CLIPConfig, CLIPModel

    vision = {
        "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": 32, "patch_size": 8, "hidden_act": "gelu",
    }  # fmt: skip
    text = {
        "hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "vocab_size": 49408, "max_position_embeddings": 77,
        "hidden_act": "gelu", "eos_token_id": 49407, "bos_token_id": 49406, "pad_token_id": 49407,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    return _random(CLIPModel(config), seed)


def siglip_model(seed: int = 0) -> Any:
    """A whole ``SiglipModel`` whose image side has the sizes of ``SIGLIP``."""
    ensure_torchvision_importable()
    from transformers import SiglipConfig, SiglipModel

    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": 50, "projection_size": 24}  # fmt: skip
    return _random(SiglipModel(SiglipConfig(text_config=text, vision_config=SIGLIP)), seed)


def _random(model: Any, seed: int) -> Any:
    """Weights large enough that two images differ clearly, and norms that are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.named_parameters():
        scale = 0.3 if tensor.ndim < 2 or "embedding" in name else 2 / tensor[0].numel() ** 0.5
        tensor.data = scale * torch.randn(tensor.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            tensor.data += 1
    if hasattr(model, "logit_scale"):
        model.logit_scale.data.fill_(2.6592)
    return model.eval().requires_grad_(False)


def saved(model: Any, path: Path, **more: torch.Tensor) -> Path:
    """The model's tensors in a safetensors file, as transformers saves them."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file({**state, **more}, path)
    return path


def published_tokenizer(folder: Path) -> Any:
    """Read a ``CLIPTokenizer`` from ``vocab.json`` and ``merges.txt``, as it is published."""
    import_open_clip()
    from open_clip.tokenizer import bytes_to_unicode, default_bpe
    from transformers import CLIPTokenizer

    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters)]
    words += ["".join(line.split()) for line in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return CLIPTokenizer.from_pretrained(str(folder))

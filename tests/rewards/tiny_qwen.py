"""A Qwen2-VL of random weights, small enough to differentiate in a blink, and its folder."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from base_model.training.text_encoder import SPECIAL_TOKENS, train_tokenizer
from rewards.kinds.qwen_critic import ANSWERS, ASPECTS
from rewards.qwen.frames import QwenFrames
from rewards.qwen.model import Medium, QwenTower

WIDTH = 48
PROMPTS = ("a red star rises", "a small blue circle moves left on a dark background")


@cache
def tokenizer() -> Any:
    texts = [*ASPECTS.values(), *ANSWERS, *PROMPTS] * 20
    return train_tokenizer(texts, vocab_size=400, max_length=4096)


def config(vocabulary: int = 0, *, tied: bool = False, patch: int = 14) -> Any:
    from transformers import Qwen2VLConfig

    ids = {name: tokenizer().convert_tokens_to_ids(name) for name in SPECIAL_TOKENS}
    return Qwen2VLConfig(
        text_config={
            "vocab_size": vocabulary or len(tokenizer()),
            "hidden_size": WIDTH,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 2, 2],
            },
            "pad_token_id": 0,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
            "hidden_size": WIDTH,
            "patch_size": patch,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=tied,
    )


def model(vocabulary: int = 0, *, tied: bool = False, patch: int = 14) -> Any:
    """Weights of a scale at which the score depends on every pixel."""
    from transformers import Qwen2VLForConditionalGeneration

    built = Qwen2VLForConditionalGeneration(config(vocabulary, tied=tied, patch=patch))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
    return built.eval()


def spec(**fields: Any) -> QwenFrames:
    """Every frame as it is, down to one merged patch."""
    return QwenFrames(min_pixels=28 * 28, max_pixels=112 * 112, **fields)


def tower(medium: Medium = "video", **fields: Any) -> QwenTower:
    return QwenTower(model(), tokenizer(), spec(**fields), medium)


def bytes_clips(count: int, frames: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """``(count, frames, 3, height, width)`` in whole 255ths, as an image processor gets them."""
    generator = torch.Generator().manual_seed(seed)
    size = (count, frames, 3, height, width)
    return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)


def old_name(name: str) -> str:
    """As transformers named it before 4.52, which is what every published file has."""
    name = name.replace("model.visual.", "visual.")
    return name.replace("model.language_model.", "model.")


def write_folder(
    folder: Path, built: Any, *, old: bool = False, files: int = 1, extra: Any = None
) -> Path:
    """A folder as the hub has it: config, weights in some files, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    built.config.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    state = {k: v.clone().contiguous() for k, v in built.state_dict().items()}
    if built.config.tie_word_embeddings:
        del state["lm_head.weight"]
    if old:
        state = {old_name(k): v for k, v in state.items()}
    state |= extra or {}
    names = sorted(state)
    if files == 1:
        save_file(state, folder / "model.safetensors")
        return folder
    index = {}
    for i in range(files):
        name = f"model-{i + 1:05d}-of-{files:05d}.safetensors"
        save_file({k: state[k] for k in names[i::files]}, folder / name)
        index |= dict.fromkeys(names[i::files], name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder

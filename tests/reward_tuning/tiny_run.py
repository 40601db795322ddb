"""A whole run in seconds: real classes with random weights, real judges, real recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from reward_tuning.files.yaml_text import write_yaml
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from tests.base_model.conftest import small_tokenizer
from tests.goldens import write_checkpoint
from tests.rewards.tiny_clip import ARCHITECTURE, flat_file, random_state

TRAIN = ["a red ball", "a blue cube", "a dog runs", "一只猫", "a green star"]
HELD_OUT = ["a yellow ball", "a cat", "一个红色的球"]
RECIPE: dict[str, Any] = {
    "seed": 3,
    "output": "run",
    "generator": {"checkpoint": "generator", "dtype": "float32"},
    "prompts": {"train": "train.txt", "held_out": "held.txt"},
    "sampling": {
        "steps": 4,
        "guidance_scale": 3.0,
        "frames": 5,
        "height": 32,
        "width": 32,
    },
    "method": {"kind": "drtune", "active_steps": 2, "early_stop": False},
    "rewards": [{"kind": "clip", "checkpoint": "judge/flat.safetensors"}],
    "lora": {"rank": 2, "alpha": 2, "targets": "attention"},
    "train": {
        "steps": 6,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "ema_decay": 0.9,
        "checkpoint_every": 2,
    },
    "evaluation": {
        "prompts": 3,
        "seeds": 2,
        "batch_size": 4,
        "held_out_rewards": [{"kind": "clip", "checkpoint": "held-out/flat.safetensors"}],
    },
}


def write_text_encoder(folder: Path) -> None:
    """`text_encoder/` and `tokenizer/` of a random Qwen2-VL, 48 wide."""
    tokenizer = small_tokenizer(model_max_length=64)
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "max_position_embeddings": 256,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [2, 3, 3]},
        },
        vision_config={"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 48},
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen2VLForConditionalGeneration(config).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")


def write_world(folder: Path) -> Path:
    """Generator, judges and prompts that the recipe names."""
    write_checkpoint(folder / "generator")
    write_text_encoder(folder / "generator")
    for name, seed in (("judge", 0), ("held-out", 1)):
        (folder / name).mkdir()
        with torch.random.fork_rng(devices=[]):
            state = random_state(ARCHITECTURE, seed)
        flat_file(folder / name, state, architecture=json.dumps(ARCHITECTURE))
    (folder / "train.txt").write_text("\n".join(TRAIN), encoding="utf-8")
    (folder / "held.txt").write_text("\n".join(HELD_OUT), encoding="utf-8")
    return folder


def tiny_recipe(world: Path, output: Path, *overrides: str) -> Recipe:
    """The recipe, resolved, with `key.sub=value` changes."""
    path = world / "recipe.yaml"
    if not path.exists():
        path.write_text(write_yaml(RECIPE), encoding="utf-8")
    return load_recipe(path, [f"output={output}", *overrides])

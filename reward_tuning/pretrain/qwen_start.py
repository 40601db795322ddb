"""Start of the embedded judges with special tokens: the embedded critic, for longer texts.

The published prompts of such judges have more tokens than the embedded critic has positions. Each
fixed passage of them is therefore one token here, with its own embedding: VideoAlign's prompt
passes through the same code with 20 tokens instead of 2,855.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.pretrain.judge_critic import frames_spec
from rewards.core.tower_options import TowerOptions
from rewards.kinds import hpsv3, video_align
from rewards.qwen.files import EMBEDDING, build_qwen_model, load_tokenizer, read_config, read_folder
from rewards.qwen.model import Medium, QwenTower, Reading
from rewards.qwen.templates import template

CRITIC, BASE = "qwen-critic", "qwen-base"
SHIPPED_BASE = f"tiny/{BASE}"
"""Name of the base in a judge's file."""

COPIED = ("config.json", "video_preprocessor_config.json")


def passages() -> list[str]:
    """Return the passages of the published texts between special tokens and prompt."""
    found = []
    for name, tokens in (("video_align", video_align.TOKENS), ("hpsv3", (hpsv3.TOKEN,))):
        between = "|".join(re.escape(text) for text in (*tokens, "{text_prompt}"))
        found += re.split(between, template(name))
    return list(dict.fromkeys(text for text in found if text.strip()))


def write_base(out_dir: Path) -> Path:
    """Write the folder with config and tokenizer of the judges with special tokens.

    It holds no weights, which are in each judge's own file.

    Args:
        out_dir: Folder that holds the critic's folder.

    Raises:
        TuningError: The critic is missing.
    """
    critic = out_dir / CRITIC
    if not (critic / "config.json").is_file():
        raise TuningError(
            f"{critic} is missing; this judge starts from it. Train it first: reward-tuning "
            f"pretrain tiny --only {CRITIC}"
        )
    folder = out_dir / BASE
    folder.mkdir(exist_ok=True)
    for name in COPIED:
        shutil.copyfile(critic / name, folder / name)
    tokenizer = load_tokenizer(critic)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in passages()])
    tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["text_config"]["vocab_size"] = len(tokenizer)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


def start_tower(out_dir: Path, special: Sequence[str], medium: Medium = "video") -> QwenTower:
    """Load the critic's weights with embeddings of the new tokens, ready for training.

    Args:
        out_dir: Folder that holds the critic's folder; `write_base` adds the base to it.
        special: Special tokens of the judge.
        medium: Input of the judge.

    Raises:
        TuningError: The critic is missing.
    """
    folder = write_base(out_dir)
    tokenizer = load_tokenizer(folder, special)
    state = {name: tensor.float() for name, tensor in read_folder(out_dir / CRITIC).items()}
    known = state[EMBEDDING]
    new = torch.randn(len(tokenizer) - len(known), known.shape[1]) * known.std()
    state[EMBEDDING] = torch.cat([known, new])
    model = build_qwen_model(
        read_config(folder, len(tokenizer)),
        state,
        out_dir / CRITIC,
        TowerOptions(),
        language_head=False,
    )
    tower = QwenTower(model, tokenizer, frames_spec(), medium, "plain")
    model.requires_grad_(True)
    return tower


def states_at(reading: Reading, token: int) -> Tensor:
    """Return the states at a token that each of the k texts has once, `(b, k, d)`."""
    found = reading.tokens == token
    return reading.states[found].unflatten(0, reading.ends.shape)


def half(state: dict[str, Any]) -> dict[str, Tensor]:
    """Copy tensors to fp16, without shared memory."""
    return {name: tensor.detach().half().clone() for name, tensor in state.items()}

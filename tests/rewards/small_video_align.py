"""A VideoAlign of a few thousand weights, and folders of it as published."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rewards.kinds.video_align import TOKENS, VideoAlignReward, load_video_align
from tests.rewards import tiny_qwen
from tests.rewards.options import taken
from tests.rewards.tiny_qwen import WIDTH, old_name, write_folder

CONFIG: dict[str, Any] = {
    "data_config": {
        "max_frame_pixels": 112 * 112,
        "min_frame_pixels": 28 * 28,
        "num_frames": None,
        "fps": 2.0,
        "eval_dim": ["VQ", "MQ", "TA"],
        "prompt_template_type": "detailed_special",
        "sample_type": "uniform",
    },
    "model_config": {
        "model_name_or_path": "base",
        "output_dim": 1,
        "use_special_tokens": True,
        "reward_token": "special",
    },
    "peft_lora_config": {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "use_rslora": False},
    "inference_config": {
        "VQ_mean": 1.0,
        "VQ_std": 2.0,
        "MQ_mean": -1.0,
        "MQ_std": 0.5,
        "TA_mean": 0.0,
        "TA_std": 4.0,
    },
}
CHANGED = ("visual.merger", "rm_head", "embed_tokens", "lm_head")
"""Parts of names that the training changed beside the adapter (the head for words is not read)."""


def reward_model(outputs: int = 1) -> Any:
    """What the authors train: a Qwen2-VL with enough embeddings, and a head beside it."""
    model = tiny_qwen.model(len(tiny_qwen.tokenizer()) + len(TOKENS))
    model.rm_head = nn.Linear(WIDTH, outputs, bias=False)
    generator = torch.Generator().manual_seed(5)
    nn.init.normal_(model.rm_head.weight, std=0.3, generator=generator)
    return model


def with_lora(model: nn.Module) -> Any:
    from peft import LoraConfig, get_peft_model

    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "language_model" in name
    ]
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=names))
    generator = torch.Generator().manual_seed(6)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.1, generator=generator)
    return wrapped.eval()


def published_name(name: str) -> str:
    head = "base_model.model."
    return head + old_name(name.removeprefix(head)) if name.startswith(head) else name


def write(
    root: Path, wrapped: Any, layout: str, config: dict[str, Any] = CONFIG, step: int = 7
) -> None:
    """A folder as published: ``whole`` or ``adapter``, under old key names."""
    folder = root / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (root / "model_config.json").write_text(json.dumps(config))
    state = {published_name(k): v.clone() for k, v in wrapped.state_dict().items()}
    if layout == "whole":
        torch.save(state, folder / "model.pth")
        return
    lora = {k.replace(".default.", "."): v.contiguous() for k, v in state.items() if "lora_" in k}
    save_file(lora, folder / "adapter_model.safetensors")
    rest = {k: v for k, v in state.items() if any(part in k for part in CHANGED)}
    torch.save(rest, folder / "non_lora_state_dict.pth")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folder(tmp_path / "base", tiny_qwen.model(), old=True)
    return tmp_path


def load(root: Path, **options: Any) -> VideoAlignReward:
    return load_video_align("judge", taken(options, folder=root), **options)

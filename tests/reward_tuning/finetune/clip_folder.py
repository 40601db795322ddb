"""A small training set of real files, and a recipe that trains on it in seconds."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reward_tuning.files.clips import write_clip
from reward_tuning.files.yaml_text import write_yaml
from reward_tuning.finetune.recipe import FinetuneRecipe, load_finetune_recipe
from tests.goldens import write_checkpoint
from tests.reward_tuning.tiny_run import write_text_encoder

RECIPE: dict[str, Any] = {
    "seed": 5,
    "output": "run",
    "generator": {"checkpoint": "generator", "dtype": "float32"},
    "data": {"metadata": "metadata.csv", "stride": 1, "frames": 5, "sides": [32], "held_out": 1},
    "flow": {"scheme": "logit_normal", "motion_share": 0.25},
    "lora": {"rank": 2, "alpha": 2, "targets": "attention"},
    "train": {
        "steps": 6,
        "batch_size": 2,
        "gradient_accumulation": 2,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "ema_decay": 0.9,
        "checkpoint_every": 2,
    },
}


def write_world_of_clips(folder: Path) -> Path:
    """A small checkpoint with its text encoder, and the training set; returns the folder."""
    write_checkpoint(folder / "generator")
    write_text_encoder(folder / "generator")
    write_clips(folder)
    return folder


def numbered_clip(frames: int, height: int, width: int) -> Tensor:
    """A clip whose frame i has the grey level (8 + 16 i) / 255 everywhere."""
    levels = (8.0 + 16.0 * torch.arange(frames)) / 255
    return levels[:, None, None, None].expand(frames, 3, height, width).contiguous()


def frame_numbers(frames: Tensor) -> list[int]:
    """Which frames of a numbered clip these are."""
    return [round((float(frame.mean()) * 255 - 8) / 16) for frame in frames]


def write_clips(folder: Path) -> Path:
    """Five usable clips of two aspect ratios, and three files that cannot be used; the list."""
    draw = torch.Generator().manual_seed(9)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(4):
        write_clip(torch.rand(9, 3, 40, 40, generator=draw), folder / f"square-{i}.mp4")
        rows.append([f"square-{i}.mp4", f"square number {i}", "video"])
    write_clip(torch.rand(6, 3, 32, 64, generator=draw), folder / "wide.mp4")
    rows.append(["wide.mp4", "一个宽的视频", "video"])
    whole = (folder / "wide.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 4])
    (folder / "text.mp4").write_text("no video")
    rows += [[name, "broken", "video"] for name in ("cut.mp4", "text.mp4", "missing.mp4")]
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file_path", "text", "type"], *rows])
    return folder / "metadata.csv"


def small_recipe(world: Path, output: Path, *overrides: str, **changes: Any) -> FinetuneRecipe:
    """The recipe, resolved, with `key.sub=value` changes; None as a value removes nothing."""
    path = world / "recipe.yaml"
    data = {**json.loads(json.dumps(RECIPE)), **changes}
    path.write_text(write_yaml(data), encoding="utf-8")
    return load_finetune_recipe(path, [f"output={output}", *overrides])

"""Whole small checkpoints of every kind, and files that their clips follow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reward_tuning.files.clips import write_clip
from tests.goldens import write_checkpoint
from tests.reward_tuning.tiny_run import write_text_encoder

CHECKPOINTS = {
    16: "sampling_7b_style",
    33: "transformer_inpaint_7b_style",
    48: "transformer_control_7b_style",
    38: "transformer_camera_all_mmdit",
}
FRAMES, HEIGHT, WIDTH = 5, 32, 48
MEDIA_SIZE = (48, 96)  # scaled by 2/3 and cut to the clip's


def write_kind(folder: Path, channels: int) -> Path:
    """A checkpoint with so many input channels, text encoder and all."""
    write_checkpoint(folder, CHECKPOINTS[channels])
    write_text_encoder(folder)
    return folder


def write_media(folder: Path) -> Path:
    """Pictures, clips, a mask, points and poses."""
    draw = torch.Generator().manual_seed(4)
    clip = torch.rand(9, 3, *MEDIA_SIZE, generator=draw)
    write_clip(clip, folder / "video.mp4")
    write_clip(clip.flip(0), folder / "other.mp4")
    write_clip(clip[:3], folder / "short.mp4")
    for name, frame in (("start", 0), ("end", 8), ("reference", 4)):
        _save(clip[frame], folder / f"{name}.png")
    mask = torch.zeros(3, *MEDIA_SIZE)
    mask[:, :, 50:] = 1
    _save(mask, folder / "mask.png")
    _save(mask[:, 1:], folder / "small-mask.png")
    (folder / "corrupt.mp4").write_bytes((folder / "video.mp4").read_bytes()[:400])
    points = [{"x": 10, "y": 10}, {"x": 30, "y": 20}]
    (folder / "points.json").write_text(json.dumps(points))
    (folder / "outside.json").write_text(json.dumps([*points, {"x": 200, "y": 20}]))
    poses = [
        [i, 0.47, 0.84, 0.5, 0.5, 0, 0, 1, 0, 0, 0.1 * i, 0, 1, 0, 0, 0, 0, 1, 0] for i in range(9)
    ]
    for name, first in (("poses", 0), ("columns", 1)):
        rows = [" ".join(map(str, row[first:])) for row in poses]
        (folder / f"{name}.txt").write_text("\n".join(["camera poses", *rows]) + "\n")
    return folder


def _save(picture: Tensor, path: Path) -> None:
    levels = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(np.ascontiguousarray(levels)).save(path)

"""Convert clips to Qwen2-VL's patches, differentiably: choice of frames, size, order.

The published code goes through 8-bit video files and image processors and so has no gradient.
This is the same arithmetic on tensors: frames chosen as `qwen-vl-utils` does, sides rounded to
whole merged patches, PIL's bicubic (`rewards.core.preprocess`), and the processors' patch order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.core.base import CLIP_FPS
from rewards.core.json_text import json_file
from rewards.core.preprocess import OPENAI_MEAN, OPENAI_STD, Passes, resized
from rewards.errors import RewardError

LONGEST_RATIO = 200
"""Largest ratio of two sides; Qwen2-VL refuses more."""

FEWEST_AT_A_RATE = 4
"""Smallest number of frames that a rate may select, as in `qwen-vl-utils`."""

MOST_AT_A_RATE = 768
"""Largest number of frames that a rate may select, as in `qwen-vl-utils`."""

GIVEN = ("min_pixels", "max_pixels", "patch_size", "merge_size", "temporal_patch_size")


@dataclass(frozen=True)
class Patches:
    """The input of a Qwen2-VL vision tower.

    Attributes:
        values: `(b * t * h * w, 3 * temporal_patch_size * patch_size**2)`, normalised.
        grid: T, h and w, of one clip, in patches before merging.
    """

    values: Tensor
    grid: tuple[int, int, int]


@dataclass(frozen=True)
class QwenFrames:
    """The preprocessing of clips for one judge on Qwen2-VL.

    Attributes:
        count: Frames taken of a clip, evenly spaced, rounded to even; `None` for all (or by
            `fps`).
        fps: Frames taken per second of the clip, at least 4; excludes `count`.
        clip_fps: Frame rate of the clips, used with `fps` only: a file's own rate for clips from
            files, by default EasyAnimate's 8.
        min_pixels: Smaller frames are enlarged to it (the default is that of videos).
        max_pixels: Larger frames are reduced to it.
        patch_size: Side of a patch in pixels.
        merge_size: Number of patches per side that become one token.
        temporal_patch_size: Number of frames that a patch spans.
        mean: Mean of each colour, subtracted.
        std: Standard deviation of each colour, divided by.
        quantised: Round to 8 bits in the resize, with a straight-through gradient. The loaders set
            it, because the published processors resize bytes.
        passes: Passes of the resize: 1 as torchvision resizes videos (`qwen-vl-utils`, VideoAlign),
            2 as PIL resizes images (HPSv3).

    Raises:
        RewardError: `count` and `fps` are both given, or a number is below 1.
    """

    count: int | None = None
    fps: float | None = None
    clip_fps: float = CLIP_FPS
    min_pixels: int = 128 * 28 * 28
    max_pixels: int = 768 * 28 * 28
    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    quantised: bool = False
    passes: Passes = 2

    def __post_init__(self) -> None:
        if self.count is not None and self.fps is not None:
            raise RewardError(
                f"count is {self.count} and fps is {self.fps}: give the frames of a clip as a "
                "number or as a rate, not both"
            )
        for name in ("count", "fps", "clip_fps", *GIVEN):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise RewardError(f"{name} is {value}; it must be above 0")
        if self.min_pixels > self.max_pixels:
            raise RewardError(
                f"min_pixels is {self.min_pixels} and max_pixels {self.max_pixels}; the first must "
                "not be larger"
            )

    def chosen(self, total: int) -> list[int]:
        """Return the positions of the frames to look at, of a clip of `total` frames.

        An odd number of them repeats the last, as the processors do.
        """
        step = self.temporal_patch_size
        if self.count is not None:
            number = max(step, round(self.count / step) * step)
        elif self.fps is not None:
            most = max(step, min(MOST_AT_A_RATE, total) // step * step)
            asked = min(max(total / self.clip_fps * self.fps, FEWEST_AT_A_RATE), most)
            number = round(asked / step) * step
        else:
            number = total
        places = torch.linspace(0, total - 1, min(number, total)).round().long().tolist()
        return places + [places[-1]] * (-len(places) % step)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of Qwen2-VL's smart resize: whole merged patches, within both limits.

        Args:
            height: Height of a frame.
            width: Width of a frame.

        Returns:
            Height and width of what the tower sees.

        Raises:
            RewardError: One side is more than 200 times the other.
        """
        if max(height, width) / min(height, width) > LONGEST_RATIO:
            raise RewardError(
                f"frames are {height}x{width}; Qwen2-VL takes sides of a ratio up to "
                f"{LONGEST_RATIO}. Crop them first"
            )
        side = self.patch_size * self.merge_size
        new = [max(side, round(length / side) * side) for length in (height, width)]
        if new[0] * new[1] > self.max_pixels:
            scale = math.sqrt(height * width / self.max_pixels)
            new = [max(side, int(n / scale / side) * side) for n in (height, width)]
        elif new[0] * new[1] < self.min_pixels:
            scale = math.sqrt(self.min_pixels / (height * width))
            new = [math.ceil(n * scale / side) * side for n in (height, width)]
        return new[0], new[1]

    def __call__(self, clips: Tensor) -> Patches:
        """Choose frames, resize, normalise, cut into patches.

        Args:
            clips: `(b, f, 3, H, W)` in [0, 1], fp32 or fp64. One frame is an image: it is
                repeated to fill a patch.

        Returns:
            Patches in the clips' dtype, differentiable; the b clips one after the other.
        """
        clips = clips[:, self.chosen(clips.shape[1])]
        height, width = self.size(*clips.shape[-2:])
        images = resized(
            clips.flatten(0, 1), height, width, quantised=self.quantised, passes=self.passes
        )
        mean = images.new_tensor(self.mean).view(3, 1, 1)
        std = images.new_tensor(self.std).view(3, 1, 1)
        return self._cut(((images - mean) / std).unflatten(0, clips.shape[:2]))

    def _cut(self, clips: Tensor) -> Patches:
        """Cut `(b, t * pt, 3, h * p, w * p)` into rows in the processors' order.

        The patches that are merged into one token are neighbours; in a patch, colour comes
        before time.
        """
        p, m, pt = self.patch_size, self.merge_size, self.temporal_patch_size
        b, f, channels, height, width = clips.shape
        t, h, w = f // pt, height // p, width // p
        x = clips.reshape(b, t, pt, channels, h // m, m, p, w // m, m, p)
        x = x.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)
        return Patches(x.reshape(b * t * h * w, channels * pt * p * p), (t, h, w))


def frames_of_folder(folder: Path, options: Mapping[str, Any]) -> QwenFrames:
    """Read the preprocessing of the model in a folder; `options` take precedence.

    Sizes of patches come from `config.json`. A `video_preprocessor_config.json` gives mean,
    deviation and the limits of pixels; without one they are those that Qwen2-VL's own video route
    uses, not those of `preprocessor_config.json`, which are for images.

    Args:
        folder: Folder with `config.json`.
        options: Fields of `QwenFrames`; `None` counts as not given.

    Raises:
        RewardError: The options exclude each other or are out of range.
    """
    vision = json_file(folder / "config.json").get("vision_config")
    if not isinstance(vision, dict):
        raise RewardError(
            f"{folder / 'config.json'} has no vision_config: it is damaged or of another model. "
            "Fetch the folder again"
        )
    frames = QwenFrames(
        patch_size=vision.get("patch_size", 14),
        merge_size=vision.get("spatial_merge_size", 2),
        temporal_patch_size=vision.get("temporal_patch_size", 2),
    )
    path = folder / "video_preprocessor_config.json"
    if path.is_file():
        said = json_file(path)
        size = said.get("size", {})
        found = {
            "mean": tuple(said["image_mean"]) if "image_mean" in said else None,
            "std": tuple(said["image_std"]) if "image_std" in said else None,
            "min_pixels": size.get("shortest_edge", said.get("min_pixels")),
            "max_pixels": size.get("longest_edge", said.get("max_pixels")),
        }
        frames = replace(frames, **{k: v for k, v in found.items() if v is not None})
    return replace(frames, **{k: v for k, v in options.items() if v is not None})

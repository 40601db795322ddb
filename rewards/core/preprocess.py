"""Resize and normalise frames as a tower's training did, differentiably and close to PIL.

`interpolate(mode="bicubic", antialias=True)` has PIL's kernel, but PIL works in 8 bits: it clamps
after the horizontal and after the vertical pass. Two 1-D passes with a clamp after each stay within
1.1 of 255 levels of PIL; one 2-D call overshoots by up to 26 levels at hard edges.

Every Pillow before 13 resizes horizontally first, and so every published score does. Pillow 13
resizes vertically first where the height shrinks much more than the width (up to 18 levels at hard
edges).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from rewards.errors import RewardError

ResizeMode = Literal["letterbox", "crop", "squash"]
CropRounding = Literal["floor", "round"]
Kernel = Literal["bicubic", "bilinear"]
Passes = Literal[1, 2]
PreprocessChoice = Literal["own", "squash"]
"""`own`: as a judge's authors prepare frames; `squash`: `Preprocess.squashed`."""

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)  # published with CLIP
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of torchvision's weights
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing of one judge's images.

    Attributes:
        mode: `letterbox` scales the longest side to `size` and pads with black, `crop` scales
            the shortest side and cuts the centre, `squash` ignores the aspect ratio.
        size: Side of the resulting square.
        mean: Mean of each colour, subtracted.
        std: Standard deviation of each colour, divided by.
        rounding: Treatment of half a pixel in `crop`: torchvision rounds, Hugging Face floors.
        clamped: Clamp to [0, 1] after each pass, as images in 8 bits are; HPSv2 resizes floats and
            keeps the overshoot.
        quantised: Round to 8 bits after each pass, as PIL does; the gradient passes straight
            through.
        shortest: Shortest side before the cut of `crop`; `size` if `None`.
        kernel: Kernel of the antialiased resampling; MobileCLIP, CLIPA and PE use bilinear.
        antialias: `False` as in VBench's resize for its CLIP: frames are sampled, not averaged.
    """

    mode: ResizeMode
    size: int
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    rounding: CropRounding = "round"
    clamped: bool = True
    quantised: bool = False
    shortest: int | None = None
    kernel: Kernel = "bicubic"
    antialias: bool = True

    def __post_init__(self) -> None:
        if self.mode not in ("letterbox", "crop", "squash") or self.size < 1:
            raise RewardError(
                f"preprocess has mode {self.mode!r} and size {self.size}; allowed: letterbox, crop "
                "or squash, and a size of at least 1"
            )
        if self.shortest is not None and (self.mode != "crop" or self.shortest < self.size):
            raise RewardError(
                f"preprocess has mode {self.mode!r}, size {self.size} and shortest "
                f"{self.shortest}; shortest needs mode crop and a value of at least the size"
            )

    def to_json(self) -> str:
        """Return the form in which the metadata of a judge's file stores it."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Preprocess:
        """Read the form of `to_json`.

        Raises:
            RewardError: A field is unknown or missing.
        """
        try:
            fields = json.loads(text)
            return cls(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})
        except (TypeError, KeyError, ValueError) as error:
            raise RewardError(f"cannot read the preprocess {text!r} of a judge: {error}") from error

    def squashed(self) -> Preprocess:
        """Return the preprocessing that the reward scripts of EasyAnimate and VideoX-Fun use.

        `torchvision.transforms.Resize((size, size), BICUBIC)` on float frames, which ignores the
        aspect ratio, antialiases, and neither clamps nor rounds; then the judge's own mean and
        standard deviation.
        """
        return dataclasses.replace(
            self, mode="squash", clamped=False, quantised=False, shortest=None, kernel="bicubic"
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Prepare images: `(n, 3, H, W)` in [0, 1] -> `(n, 3, size, size)`, normalised."""
        match self.mode:
            case "letterbox":
                images = self._letterbox(images)
            case "crop":
                images = self._crop(images)
            case "squash":
                images = self.resize(images, self.size, self.size)
        mean = images.new_tensor(self.mean).view(3, 1, 1)
        std = images.new_tensor(self.std).view(3, 1, 1)
        return (images - mean) / std

    def resize(self, images: Tensor, height: int, width: int) -> Tensor:
        """Resize as this judge's reference does (see `clamped` and `quantised`)."""
        return resized(
            images,
            height,
            width,
            clamped=self.clamped,
            quantised=self.quantised,
            kernel=self.kernel,
            antialias=self.antialias,
        )

    def _letterbox(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        scale = self.size / max(height, width)
        new_height, new_width = round(height * scale), round(width * scale)
        images = self.resize(images, max(new_height, 1), max(new_width, 1))
        pad_h, pad_w = self.size - images.shape[-2], self.size - images.shape[-1]
        sides = (pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2)
        return F.pad(images, sides)  # black before normalisation, as HPSv2

    def _crop(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        side = self.shortest or self.size
        if width <= height:
            images = self.resize(images, int(side * height / width), side)
        else:
            images = self.resize(images, side, int(side * width / height))
        top = self._crop_start(images.shape[-2])
        left = self._crop_start(images.shape[-1])
        return images[..., top : top + self.size, left : left + self.size]

    def _crop_start(self, length: int) -> int:
        if self.rounding == "floor":
            return (length - self.size) // 2
        return round((length - self.size) / 2.0)


def chosen_preprocess(own: Preprocess, choice: PreprocessChoice) -> Preprocess:
    """Return the preprocessing that a recipe chooses for a judge.

    Args:
        own: Preprocessing of the judge's file or kind.
        choice: Value of the recipe.

    Raises:
        RewardError: The choice is neither.
    """
    if choice == "own":
        return own
    if choice == "squash":
        return own.squashed()
    raise RewardError(f"preprocess is {choice!r}; allowed: own, squash")


def resized(
    images: Tensor,
    height: int,
    width: int,
    *,
    clamped: bool = True,
    quantised: bool = False,
    kernel: Kernel = "bicubic",
    passes: Passes = 2,
    antialias: bool = True,
) -> Tensor:
    """Resize by antialiased bicubic (a = -0.5) or bilinear, by default in two 1-D passes as PIL.

    Args:
        images: `(n, c, H, W)` in [0, 1], fp32 or fp64 (half types have no antialiased kernel on
            CPU).
        height: Height of the result.
        width: Width of the result.
        clamped: Clamp to [0, 1] after each pass.
        quantised: Round to 8 bits after each pass, with a straight-through gradient; clamps too.
        kernel: Kernel of the resampling.
        passes: 2 as PIL, horizontal first; 1 as torchvision resizes a tensor, with one clamp and
            one rounding at the end.
        antialias: `False` for torch's plain bicubic, whose a is -0.75.

    Returns:
        `(n, c, height, width)`. A pass that would not change the size is skipped.
    """
    sizes = ((images.shape[-2], width), (height, width))
    for size in sizes[-passes:]:
        if tuple(images.shape[-2:]) == size:
            continue
        images = F.interpolate(images, size=size, mode=kernel, antialias=antialias)
        if clamped or quantised:
            images = images.clamp(0, 1)
        if quantised:
            images = images + ((images * 255 + 0.5).floor() / 255 - images).detach()
    return images

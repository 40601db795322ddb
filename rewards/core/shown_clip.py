"""A clip as a judge outside this process is shown it: bytes, a file, pictures."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rewards.core.mp4 import mp4_bytes

Picture = Literal["png", "jpeg"]
JPEG_QUALITY = 95


@dataclass(frozen=True, eq=False)
class ShownClip:
    """A clip in 8 bits.

    Attributes:
        frames: `(f, H, W, 3)`.
        fps: Frames per second.
    """

    frames: np.ndarray[Any, np.dtype[np.uint8]]
    fps: float

    @classmethod
    def of(cls, frames: Tensor, fps: float) -> ShownClip:
        """Round a clip `(f, 3, H, W)` in [0, 1] to 8 bits."""
        levels = frames.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)
        video: np.ndarray[Any, np.dtype[np.uint8]] = (
            levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        )
        return cls(video, fps)

    @cached_property
    def digest(self) -> str:
        """Hash of its shape and bytes, 64 hexadecimal digits."""
        about = hashlib.sha256(repr(self.frames.shape).encode())
        about.update(self.frames.tobytes())
        return about.hexdigest()

    @cached_property
    def mp4(self) -> bytes:
        """The clip as an mp4 file (`mp4_bytes`)."""
        return mp4_bytes(self.frames, self.fps)

    def data_urls(self, form: Picture) -> list[str]:
        """Return each frame as a picture in a `data:` address."""
        return [_data_url(frame, form) for frame in self.frames]


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked at once: the score of one clip, or which of two is better.

    Attributes:
        clips: One clip, or two.
        prompt: The prompt of all of them.
    """

    clips: Sequence[ShownClip]
    prompt: str


def _data_url(frame: np.ndarray[Any, np.dtype[np.uint8]], form: Picture) -> str:
    held = io.BytesIO()
    # 4:4:4: at clips' sizes the thinned colour of usual JPEG files is visible.
    options = {"quality": JPEG_QUALITY, "subsampling": 0} if form == "jpeg" else {}
    Image.fromarray(frame).save(held, form, **options)
    return f"data:image/{form};base64,{base64.b64encode(held.getvalue()).decode()}"

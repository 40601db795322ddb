"""The interface of judges: the protocol, its two base classes, input checks, exact chunking.

Scores are fp32 and higher is better; the caller computes the loss from them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rewards.core.shared_towers import derived
from rewards.errors import RewardError

ScoreFn = Callable[[Tensor, slice], Tensor]
"""`(images[rows], rows)` -> scores `(n,)` of these rows, or features `(n, d)`."""

CLIP_FPS = 8.0
"""Frame rate of a clip if none is given: that of EasyAnimateV5.1."""

RANGE_TOLERANCE = 1e-4  # a decoder's clamp rounds; a real mistake (-1..1, 0..255) is far larger


@runtime_checkable
class Reward(Protocol):
    """Any object that scores clips."""

    name: str

    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score clips.

        Args:
            frames: `(b, f, 3, H, W)` in [0, 1], fp32.
            prompts: b texts.

        Returns:
            `(b,)` fp32, higher is better, differentiable in `frames`.
        """
        ...


def check_input(frames: Tensor, prompts: Sequence[str]) -> None:
    """Check that frames and prompts can be scored.

    Args:
        frames: `(b, f, 3, H, W)`, fp32 (fp64 for gradient checks), finite, in [0, 1].
        prompts: b strings, none of them empty.

    Raises:
        RewardError: They cannot; the message says why.
    """
    if not isinstance(frames, Tensor):
        raise RewardError(
            f"frames are a {type(frames).__name__}; expected a tensor. Call torch.from_numpy on an "
            "array"
        )
    if frames.ndim != 5 or frames.shape[2] != 3:
        raise RewardError(
            f"frames have shape {tuple(frames.shape)}; expected (batch, frames, 3, height, width). "
            "Move the colour channels to dimension 2; add the batch dimension if it is missing"
        )
    if 0 in frames.shape:
        raise RewardError(f"frames have shape {tuple(frames.shape)}: there is nothing to score")
    if frames.dtype not in (torch.float32, torch.float64):
        raise RewardError(
            f"frames are {frames.dtype}; expected float32 in [0, 1]. Call .float() first (and "
            "divide by 255 if they are bytes)"
        )
    check_prompts(prompts, frames.shape[0])
    low, high = (float(v) for v in frames.detach().aminmax())
    if math.isnan(low) or math.isnan(high):
        raise RewardError("frames contain NaN; the decoder or its latents are already wrong")
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise RewardError(
            f"frames range over [{low:.4g}, {high:.4g}]; expected [0, 1]. Map a decoder's "
            "[-1, 1] by (x / 2 + 0.5).clamp(0, 1), bytes by x / 255"
        )


def check_prompts(prompts: Sequence[str], clips: int) -> None:
    """Check that there is one non-empty text per clip.

    Raises:
        RewardError: There is not; the message says why.
    """
    if len(prompts) != clips:
        raise RewardError(f"{len(prompts)} prompts for {clips} clips; give one prompt per clip")
    if isinstance(prompts, str) or not all(isinstance(p, str) and p.strip() for p in prompts):
        raise RewardError("every prompt must be a non-empty text; give a list with one per clip")
    for prompt in prompts:
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            raise RewardError(
                f"the prompt {prompt!r} contains an invalid Unicode character (lone surrogate), "
                "which no tokenizer reads. Save the prompts as UTF-8"
            )


class _Chunked(torch.autograd.Function):
    """Scores chunk by chunk; the backward pass scores each chunk again, then with a graph."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, score: ScoreFn, chunk: int) -> Tensor:
        ctx.save_for_backward(images)
        ctx.score, ctx.chunk = score, chunk
        return torch.cat([score(images[rows], rows) for rows in _chunks(len(images), chunk)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (images,) = ctx.saved_tensors
        gradient = torch.empty_like(images)
        for rows in _chunks(len(images), ctx.chunk):
            part = images[rows].detach().requires_grad_()
            with torch.enable_grad():
                scores = ctx.score(part, rows)
            (gradient[rows],) = torch.autograd.grad(scores, part, grads[0][rows])
        return gradient, None, None


def _chunks(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def chunked_score(score: ScoreFn, images: Tensor, chunk: int | None = None) -> Tensor:
    """Score images with the memory of one chunk; the gradient equals that of one pass.

    The score of an image must depend on that image alone, and nothing but `images` receives a
    gradient (judges are frozen). Costs one more forward pass than scoring all at once.

    Args:
        score: `(images[rows], rows) -> (n,)` or `(n, d)`, deterministic.
        images: `(n, 3, H, W)`.
        chunk: Number of images per pass; `None` scores all in one pass.

    Returns:
        `(n,)` or `(n, d)`, differentiable once in `images`.

    Raises:
        RewardError: `chunk` is smaller than 1.
    """
    if chunk is not None and chunk < 1:
        raise RewardError(f"chunk is {chunk}; it must be at least 1 image, or None for all at once")
    if chunk is None or chunk >= len(images):
        return score(images, slice(0, len(images)))
    result: Tensor = _Chunked.apply(images, score, chunk)
    return result


class FrozenReward(ABC):
    """Base class of every judge: frozen networks on a device.

    Attributes:
        name: Name in metrics.
        device: Device that it runs on; frames are moved there.
        chunk: Number of frames (of a `VideoReward`: clips) scored in one pass, `None` for all.
        reads_text: Whether the prompt matters to the score.
        scores_alone: Whether it scores a clip by itself, and not against others of its prompt.
        context_length: Tokens of a text that it reads; `None` if it reads texts of any length, or
            none.
        differentiable: Whether its score has a gradient. One without is trained on by an estimate
            alone.
    """

    name: str
    device: torch.device
    chunk: int | None = None
    reads_text: bool = True
    scores_alone: bool = True
    context_length: int | None = None
    differentiable: bool = True

    @property
    @abstractmethod
    def modules(self) -> list[nn.Module]:
        """Its frozen networks, which take the memory; empty for a judge that is a formula."""

    def truncated(self, prompts: Sequence[str]) -> list[int]:
        """Return the positions of prompts that are longer than it reads (`context_length`)."""
        del prompts
        return []

    def at_rate(self, fps: float) -> FrozenReward:
        """Return this judge for clips of `fps` frames per second; itself if that has no effect."""
        del fps
        return self

    @abstractmethod
    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score clips: `(b, f, 3, H, W)` in [0, 1] and b prompts -> `(b,)` fp32."""


class FrameReward(FrozenReward):
    """A judge that sees single frames; a clip's score is the mean over its frames."""

    @abstractmethod
    def condition(self, prompts: Sequence[str]) -> Tensor | None:
        """Encode prompts for `score_images`: `(b, ...)` without gradient, or `None`."""

    @abstractmethod
    def score_images(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """Score single frames: `(n, 3, H, W)` in [0, 1] and `(n, ...)` -> `(n,)`, row by row."""

    @abstractmethod
    def image_features(self, images: Tensor) -> Tensor:
        """Encode frames: `(n, 3, H, W)` in [0, 1] -> `(n, d)` of length 1, differentiable."""

    def per_frame(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score every frame: `(b, f, 3, H, W)` and b prompts -> `(b, f)`.

        Raises:
            RewardError: The input cannot be scored (`check_input`).
        """
        check_input(frames, prompts)
        count = frames.shape[1]
        condition = self.condition(prompts)
        if condition is not None:
            condition = condition.repeat_interleave(count, dim=0)

        def score(images: Tensor, rows: slice) -> Tensor:
            return self.score_images(images, None if condition is None else condition[rows])

        scores = chunked_score(score, self._images(frames), self.chunk)
        return scores.unflatten(0, (-1, count))

    def clip_features(self, frames: Tensor) -> Tensor:
        """Return mean image features of clips: `(b, f, 3, H, W)` -> `(b, d)`, differentiable."""
        features = self.image_features(self._images(frames))
        return features.unflatten(0, (-1, frames.shape[1])).mean(dim=1)

    def _images(self, frames: Tensor) -> Tensor:
        """Flatten clips to frames on its device: `(b, f, 3, H, W)` -> `(b * f, 3, H, W)`."""
        key = ("images", self.device)
        return derived(frames, key, lambda: frames.to(self.device).flatten(0, 1))

    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score clips: `(b, f, 3, H, W)` and b prompts -> `(b,)`, the mean over frames."""
        return self.per_frame(frames, prompts).mean(dim=1)


class VideoReward(FrozenReward):
    """A judge that sees a clip as a whole, such as its motion.

    Attributes:
        least_frames: Smallest number of frames that it accepts.
    """

    least_frames: int = 1

    @property
    def reach(self) -> int | None:
        """Number of neighbouring frames n, if a clip's score is the mean over all n neighbours.

        A clip can then be scored in parts. `None` if the score is no such mean.
        """
        return None

    @abstractmethod
    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score clip by clip: `(b, f, 3, H, W)` in [0, 1] and b prompts -> `(b,)` fp32."""

    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score clips: `(b, f, 3, H, W)` and b prompts -> `(b,)`.

        Raises:
            RewardError: The input cannot be scored (`check_input`), or the clips are too short.
        """
        check_input(frames, prompts)
        if frames.shape[1] < self.least_frames:
            raise RewardError(
                f"the judge {self.name} compares frames and needs at least {self.least_frames} of "
                f"a clip; got {frames.shape[1]}. Sample longer clips, or let it see more frames"
            )

        def score(clips: Tensor, rows: slice) -> Tensor:
            return self.score_clips(clips, prompts[rows])

        return chunked_score(score, frames.to(self.device), self.chunk)

"""What a judge is: the protocol, its two kinds, the input check and the exact chunked gradient.

Scores are fp32 and higher is better; the loss is made outside, from scores.
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
"""`(images[rows], rows) -> (n,)` scores of these rows, or `(n, d)` features."""

CLIP_FPS = 8.0
"""Frames a second of a clip where nobody says: those of EasyAnimateV5.1."""

RANGE_TOLERANCE = 1e-4  # rounding of a decoder's clamp; a real mistake (-1..1, 0..255) is far off


@runtime_checkable
class Reward(Protocol):
    """Anything that scores clips."""

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
    """Refuse what no judge can score.

    Args:
        frames: Must be `(b, f, 3, H, W)`, fp32 (fp64 for gradient checks), finite, in [0, 1].
        prompts: Must be b strings, none of them empty.

    Raises:
        RewardError: Says what is wrong, the value it got, and the next step.
    """
    if not isinstance(frames, Tensor):
        raise RewardError(
            f"frames are a {type(frames).__name__}; a judge takes a tensor. Call torch.from_numpy "
            "on an array"
        )
    if frames.ndim != 5 or frames.shape[2] != 3:
        raise RewardError(
            f"frames have shape {tuple(frames.shape)}; a judge takes (batch, frames, 3, height, "
            "width). Put the colour channel in place 2; add the batch dimension if it is missing"
        )
    if 0 in frames.shape:
        raise RewardError(f"frames have shape {tuple(frames.shape)}: there is nothing to score")
    if frames.dtype not in (torch.float32, torch.float64):
        raise RewardError(
            f"frames are {frames.dtype}; a judge takes float32 in [0, 1]. Call .float() first "
            "(and divide by 255 if they are bytes)"
        )
    check_prompts(prompts, frames.shape[0])
    low, high = (float(v) for v in frames.detach().aminmax())
    if math.isnan(low) or math.isnan(high):
        raise RewardError("frames hold NaN; the decoder or the latents before it went wrong")
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise RewardError(
            f"frames range over [{low:.4g}, {high:.4g}]; a judge takes [0, 1]. Map a decoder's "
            "[-1, 1] by (x / 2 + 0.5).clamp(0, 1), bytes by x / 255"
        )


def check_prompts(prompts: Sequence[str], clips: int) -> None:
    """Refuse anything but one non-empty text a clip.

    Raises:
        RewardError: Says what is wrong.
    """
    if len(prompts) != clips:
        raise RewardError(f"{len(prompts)} prompts for {clips} clips; give one prompt a clip")
    if isinstance(prompts, str) or not all(isinstance(p, str) and p.strip() for p in prompts):
        raise RewardError("every prompt must be a non-empty text; give a list with one a clip")
    for prompt in prompts:
        if any("\ud800" <= letter <= "\udfff" for letter in prompt):
            raise RewardError(
                f"the prompt {prompt!r} holds half a letter (a lone surrogate), which no tokenizer "
                "reads. Save the prompts as UTF-8"
            )


class _Chunked(torch.autograd.Function):
    """Scores chunk by chunk; the backward pass scores each chunk again, this time with a graph."""

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
        chunk: Images a pass; `None` scores all in one pass.

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
    """A frozen judge, its networks and where they are.

    Attributes:
        name: How metrics call it.
        device: Where it runs; frames are moved there.
        chunk: Frames (of a `VideoReward`: clips) scored in one pass, `None` for all.
        reads_text: Whether the prompt matters to the score.
        context_length: Tokens of a text that it reads; `None` where it reads any text, or none.
        evaluation_only: Refused as a training reward: it measures, without a gradient to follow.
    """

    name: str
    device: torch.device
    chunk: int | None = None
    reads_text: bool = True
    context_length: int | None = None
    evaluation_only: bool = False

    @property
    @abstractmethod
    def modules(self) -> list[nn.Module]:
        """Every network it holds, frozen: what takes memory. Empty for analytic judges."""

    def truncated(self, prompts: Sequence[str]) -> list[int]:
        """Positions of the prompts that are longer than it reads (`context_length`)."""
        del prompts
        return []

    def at_rate(self, fps: float) -> FrozenReward:
        """The same judge for clips of `fps` frames a second; itself where the rate is nothing."""
        del fps
        return self

    @abstractmethod
    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score clips: `(b, f, 3, H, W)` in [0, 1] and b prompts -> `(b,)` fp32."""


class FrameReward(FrozenReward):
    """A judge that sees single frames; a clip's score is the mean over its frames."""

    @abstractmethod
    def condition(self, prompts: Sequence[str]) -> Tensor | None:
        """What the prompts give to the score: `(b, ...)` without gradient, or `None`."""

    @abstractmethod
    def score_images(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """`(n, 3, H, W)` in [0, 1] and `(n, ...)` -> `(n,)`, row by row."""

    @abstractmethod
    def image_features(self, images: Tensor) -> Tensor:
        """`(n, 3, H, W)` in [0, 1] -> `(n, d)` of length 1, differentiable."""

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
        """Mean image features of each clip, `(b, f, 3, H, W)` -> `(b, d)`, differentiable."""
        features = self.image_features(self._images(frames))
        return features.unflatten(0, (-1, frames.shape[1])).mean(dim=1)

    def _images(self, frames: Tensor) -> Tensor:
        """`(b, f, 3, H, W)` -> `(b * f, 3, H, W)` on the judge's device."""
        what = ("images", self.device)
        return derived(frames, what, lambda: frames.to(self.device).flatten(0, 1))

    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score clips: `(b, f, 3, H, W)` and b prompts -> `(b,)`, the mean over frames."""
        return self.per_frame(frames, prompts).mean(dim=1)


class VideoReward(FrozenReward):
    """A judge that sees a clip as a whole, such as its motion.

    Attributes:
        least_frames: Fewer than so many are refused.
    """

    least_frames: int = 1

    @property
    def reach(self) -> int | None:
        """Neighbouring frames whose scores' mean is the clip's, so that it can be scored in parts.

        `None` where the score is no such mean.
        """
        return None

    @abstractmethod
    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """`(b, f, 3, H, W)` in [0, 1] and b prompts -> `(b,)` fp32, clip by clip."""

    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score clips: `(b, f, 3, H, W)` and b prompts -> `(b,)`.

        Raises:
            RewardError: The input cannot be scored (`check_input`), or a clip is too short.
        """
        check_input(frames, prompts)
        if frames.shape[1] < self.least_frames:
            raise RewardError(
                f"the judge {self.name} compares frames and needs at least {self.least_frames} of "
                f"a clip; it got {frames.shape[1]}. Sample longer clips, or let it see more frames"
            )

        def score(clips: Tensor, rows: slice) -> Tensor:
            return self.score_clips(clips, prompts[rows])

        return chunked_score(score, frames.to(self.device), self.chunk)

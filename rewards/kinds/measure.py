"""Any function of frames and prompts as a judge for the evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rewards.core.base import VideoReward
from rewards.errors import RewardError

MeasureFn = Callable[[Tensor, Sequence[str]], Tensor]
"""`(b, f, 3, H, W)` in [0, 1] and b prompts -> `(b,)`; higher is better."""


class Measure(VideoReward):
    """A function as a judge, without gradient: a video-language model, a detector, a metric.

    Attributes:
        function: Function that is called with detached frames on `device`.
    """

    differentiable = False

    def __init__(
        self,
        function: MeasureFn,
        name: str,
        *,
        device: str | torch.device = "cpu",
        reads_text: bool = True,
        least_frames: int = 1,
    ) -> None:
        self.function = function
        self.name = name
        self.device = torch.device(device)
        self.reads_text = reads_text
        self.least_frames = least_frames

    @property
    def modules(self) -> list[nn.Module]:
        """Empty: the networks of the function are unknown."""
        return []

    @torch.no_grad()
    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """`(b, f, 3, H, W)` in [0, 1] and b prompts -> `(b,)` fp32.

        Raises:
            RewardError: The function returned something other than b finite numbers.
        """
        scores = self.function(frames.detach(), prompts)
        if not isinstance(scores, Tensor) or scores.shape != (len(frames),):
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise RewardError(
                f"the measure {self.name} returned {got}; it must return a tensor of shape "
                f"({len(frames)},): one number per clip"
            )
        if not bool(torch.isfinite(scores).all()):
            raise RewardError(
                f"the measure {self.name} returned {scores.tolist()}; every score must be finite"
            )
        return scores.float()

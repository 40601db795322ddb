"""Judges and VAE in the CPU's memory between uses: which modules, and in which phase they work."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from base_model.memory.offload import Offload
from reward_tuning.errors import TuningError
from reward_tuning.judges.judge import Judge
from reward_tuning.judges.shared_encoder import SharedEncoder
from rewards import LatentClip
from rewards.core.base import FrozenReward


def judge_modules(judges: Sequence[Judge]) -> list[nn.Module]:
    """Return the networks of judges, except of those that stay on a device of their own.

    Raises:
        TuningError: A judge is of a class that does not list its networks.
    """
    modules: list[nn.Module] = []
    for judge in judges:
        if judge.stays:
            continue
        if not isinstance(judge.reward, FrozenReward | LatentClip):
            raise TuningError(
                f"generator.memory: {judge.label} is of a class that does not list its networks "
                f"({type(judge.reward).__name__}), so it cannot be offloaded; set "
                "generator.memory=resident"
            )
        modules += judge.reward.modules
    return modules


def split_offload(
    resting: Sequence[nn.Module], shared: SharedEncoder | None, device: torch.device
) -> tuple[Offload, Offload]:
    """Make the offloads of judges of which one may be the generator's text encoder.

    The encoder is offloaded apart from the others, because prompts need it without them.

    Args:
        resting: Networks of the judges that are offloaded.
        shared: The encoder, on the device; it need not be one of them.
        device: Device that they work on.

    Returns:
        The offload of the encoder alone (empty if it stays on the device), and that of all.
    """
    model = None if shared is None else shared.encoder.text_encoder
    encoder = Offload([module for module in resting if module is model], device)
    others = Offload([module for module in resting if module is not model], device)
    return encoder, others.joined(encoder)

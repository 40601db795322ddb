"""Which optimiser takes a step, and how long a step: AdamW, its 8-bit kind, the rate's schedule."""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from torch import nn

from reward_tuning.errors import TuningError
from reward_tuning.schema.loop_section import LoopSection


def make_optimiser(train: LoopSection, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters.

    Raises:
        TuningError: See `require_optimiser`.
    """
    options: dict[str, Any] = {
        "lr": train.learning_rate,
        "betas": train.betas,
        "eps": train.adam_eps,
        "weight_decay": train.weight_decay,
    }
    if train.optimiser == "adamw":
        return torch.optim.AdamW(parameters, **options)
    optimiser: torch.optim.Optimizer = _bitsandbytes().AdamW8bit(parameters, **options)
    return optimiser


def require_optimiser(train: LoopSection, device: torch.device) -> None:
    """Take one step of the recipe's optimiser on a small weight, before anything is loaded.

    Args:
        train: Of the recipe.
        device: Where it would run.

    Raises:
        TuningError: bitsandbytes is missing, or has no 8-bit AdamW on this device.
    """
    if train.optimiser == "adamw":
        return
    weight = nn.Parameter(torch.ones(64, 128, device=device))  # smaller ones are kept in 32 bits
    weight.grad = torch.ones_like(weight)
    try:
        make_optimiser(train, [weight]).step()
    except (RuntimeError, NotImplementedError, AttributeError, ValueError) as error:
        if isinstance(error, TuningError):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise TuningError(
            f"train.optimiser=adamw-8bit: the installed bitsandbytes does not support {device} "
            f"({lines[0][:200]}); use adamw"
        ) from error


def learning_rate(train: LoopSection, step: int) -> float:
    """The rate of a step, counted from 1.

    Linear warm-up to the recipe's rate; then constant, or down to zero one step after the last: in
    a straight line, or along half a cosine, as `get_scheduler` of diffusers has them.
    """
    rate = train.learning_rate * min(1.0, step / max(1, train.warmup_steps))
    if train.lr_schedule == "constant" or step <= train.warmup_steps:
        return rate
    done = (step - 1 - train.warmup_steps) / max(1, train.steps - train.warmup_steps)
    if train.lr_schedule == "linear":
        return rate * (1.0 - done)
    return rate * 0.5 * (1.0 + math.cos(math.pi * done))


def _bitsandbytes() -> Any:
    try:
        return importlib.import_module("bitsandbytes.optim")
    except ImportError as error:
        raise TuningError(
            f"train.optimiser=adamw-8bit needs bitsandbytes, which cannot be imported ({error}). "
            'Install it with `pip install "reward-tuning[quantise]"`, or use adamw'
        ) from error

"""The optimiser of a recipe, and the schedule of its learning rate."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from reward_tuning.errors import TuningError
from reward_tuning.schema.loop_section import LoopSection

Build = Callable[[LoopSection, list[nn.Parameter]], torch.optim.Optimizer]


def _adamw(train: LoopSection, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, **_adam_options(train))


def _adamw_8bit(train: LoopSection, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    optimiser: torch.optim.Optimizer = _bitsandbytes(train).AdamW8bit(
        parameters, **_adam_options(train)
    )
    return optimiser


def _adam_options(train: LoopSection) -> dict[str, Any]:
    return {
        "lr": train.learning_rate,
        "betas": train.betas,
        "eps": train.adam_eps,
        "weight_decay": train.weight_decay,
    }


OPTIMISERS: dict[str, Build] = {"adamw": _adamw, "adamw-8bit": _adamw_8bit}
"""The function that builds each kind of `reward_tuning.schema.optimiser_sections`."""


def make_optimiser(train: LoopSection, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the recipe's optimiser over the parameters.

    Raises:
        TuningError: See `require_optimiser`.
    """
    return OPTIMISERS[train.optimiser.kind](train, parameters)


def require_optimiser(train: LoopSection, device: torch.device) -> None:
    """Take one step of the recipe's optimiser on a small weight, before anything is loaded.

    Args:
        train: Section of the recipe.
        device: Device that the training would use.

    Raises:
        TuningError: The optimiser's library is missing or does not support this device.
    """
    kind = train.optimiser.kind
    if kind == "adamw":  # torch's own, on every device
        return
    # bitsandbytes keeps the moments of a smaller weight in 32 bits, which would prove nothing.
    weight = nn.Parameter(torch.ones(64, 128, device=device))
    weight.grad = torch.ones_like(weight)
    try:
        make_optimiser(train, [weight]).step()
    except (RuntimeError, NotImplementedError, AttributeError, ValueError) as error:
        if isinstance(error, TuningError):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise TuningError(
            f"train.optimiser={kind}: its library does not support {device} ({lines[0][:200]}); "
            "use adamw"
        ) from error


def learning_rate(train: LoopSection, step: int) -> float:
    """Return the learning rate of a step, counted from 1.

    After a linear warm-up the rate is constant, or falls to zero one step after the last: linearly,
    or along half a cosine, as in `get_scheduler` of diffusers. The warm-up differs from theirs in
    that its first step has a length: with the rate 0 it would be lost.
    """
    rate = train.learning_rate * min(1.0, step / max(1, train.warmup_steps))
    if train.lr_schedule == "constant" or step <= train.warmup_steps:
        return rate
    done = (step - 1 - train.warmup_steps) / max(1, train.steps - train.warmup_steps)
    if train.lr_schedule == "linear":
        return rate * (1.0 - done)
    return rate * 0.5 * (1.0 + math.cos(math.pi * done))


def _bitsandbytes(train: LoopSection) -> Any:
    try:
        return importlib.import_module("bitsandbytes.optim")
    except ImportError as error:
        raise TuningError(
            f"train.optimiser={train.optimiser.kind} needs bitsandbytes, which cannot be imported "
            f"({error}). "
            'Install it with `pip install "bitsandbytes>=0.46"`, or use adamw'
        ) from error

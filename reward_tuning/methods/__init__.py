"""Published methods as plans: pure functions of a random generator and the sampler's table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.methods.draft_k import draft_k
from reward_tuning.methods.drtune import drtune
from reward_tuning.plan import Plan

METHODS = ("draft_k", "drtune")

__all__ = ["METHODS", "draft_k", "drtune", "make_plan"]


def make_plan(kind: str, generator: torch.Generator, sigmas: Tensor, **options: Any) -> Plan:
    """Make one update's plan.

    Args:
        kind: a name of `METHODS`.
        generator: the CPU generator of plans; the same on every rank.
        sigmas: `(N + 1,)`, the sampler's table.
        **options: the method's own keywords (see its function).

    Raises:
        TuningError: an unknown method, or an option out of range.
    """
    match kind:
        case "draft_k":
            return draft_k(generator, sigmas, **options)
        case "drtune":
            return drtune(generator, sigmas, **options)
        case _:
            raise TuningError(f"method.kind is {kind!r}; allowed are {', '.join(METHODS)}")

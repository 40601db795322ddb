"""Published methods as plans: pure functions of a random generator and the sampler's table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods.alignprop import alignprop
from reward_tuning.gradient.methods.direct_align import direct_align
from reward_tuning.gradient.methods.draft import draft
from reward_tuning.gradient.methods.draft_k import draft_k
from reward_tuning.gradient.methods.draft_lv import draft_lv
from reward_tuning.gradient.methods.drtune import drtune
from reward_tuning.gradient.methods.easyanimate import easyanimate
from reward_tuning.gradient.methods.flowbp_bridge import flowbp_bridge
from reward_tuning.gradient.methods.flowbp_lagrange import flowbp_lagrange
from reward_tuning.gradient.methods.flowbp_sparse import flowbp_sparse
from reward_tuning.gradient.methods.leapalign import leapalign
from reward_tuning.gradient.methods.prfl import prfl
from reward_tuning.gradient.methods.refl import refl
from reward_tuning.gradient.plan import Plan

METHODS: dict[str, Callable[..., Plan]] = {
    "draft": draft,
    "draft_k": draft_k,
    "draft_lv": draft_lv,
    "alignprop": alignprop,
    "drtune": drtune,
    "refl": refl,
    "leapalign": leapalign,
    "flowbp_sparse": flowbp_sparse,
    "flowbp_bridge": flowbp_bridge,
    "flowbp_lagrange": flowbp_lagrange,
    "direct_align": direct_align,
    "prfl": prfl,
    "easyanimate": easyanimate,
}

__all__ = [
    "METHODS",
    "alignprop",
    "direct_align",
    "draft",
    "draft_k",
    "draft_lv",
    "drtune",
    "easyanimate",
    "flowbp_bridge",
    "flowbp_lagrange",
    "flowbp_sparse",
    "leapalign",
    "make_plan",
    "prfl",
    "refl",
]


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
    if kind not in METHODS:
        raise TuningError(f"method.kind is {kind!r}; allowed are {', '.join(METHODS)}")
    return METHODS[kind](generator, sigmas, **options)

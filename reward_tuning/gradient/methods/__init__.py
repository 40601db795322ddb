"""Published methods: recipe keys, and plans drawn from a random generator and a sigma table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods.adjoint_matching import AdjointMatching
from reward_tuning.gradient.methods.alignprop import AlignProp
from reward_tuning.gradient.methods.awm import AWM
from reward_tuning.gradient.methods.direct_align import DirectAlign
from reward_tuning.gradient.methods.draft import Draft
from reward_tuning.gradient.methods.draft_k import DraftK
from reward_tuning.gradient.methods.draft_lv import DraftLV
from reward_tuning.gradient.methods.drtune import DRTune
from reward_tuning.gradient.methods.easyanimate import EasyAnimate
from reward_tuning.gradient.methods.flowbp_bridge import FlowBPBridge
from reward_tuning.gradient.methods.flowbp_lagrange import FlowBPLagrange
from reward_tuning.gradient.methods.flowbp_sparse import FlowBPSparse
from reward_tuning.gradient.methods.leapalign import LeapAlign
from reward_tuning.gradient.methods.method import Method
from reward_tuning.gradient.methods.nft import NFT
from reward_tuning.gradient.methods.prfl import PRFL
from reward_tuning.gradient.methods.refl import ReFL

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from reward_tuning.gradient.plan import Plan

METHODS: dict[str, type[Method]] = {
    get_args(method.model_fields["kind"].annotation)[0]: method
    for method in (
        Draft,
        DraftK,
        DraftLV,
        AlignProp,
        DRTune,
        ReFL,
        LeapAlign,
        FlowBPSparse,
        FlowBPBridge,
        FlowBPLagrange,
        DirectAlign,
        PRFL,
        EasyAnimate,
        AdjointMatching,
        AWM,
        NFT,
    )
}
"""Kind to method, in the order of the documentation."""


def make_plan(kind: str, draw: torch.Generator, sigmas: Tensor, **options: Any) -> Plan:
    """Draw one update's plan without a recipe.

    Args:
        kind: A key of `METHODS`.
        draw: CPU generator.
        sigmas: `(N + 1,)`, the sampler's table.
        **options: The method's keys.

    Raises:
        TuningError: An unknown method, or a key or value that it does not allow.
    """
    if kind not in METHODS:
        raise TuningError(f"method.kind is {kind!r}; allowed are {', '.join(METHODS)}")
    try:
        method = METHODS[kind].model_validate({"kind": kind, **options})
    except ValidationError as error:
        messages = [
            f"method.{'.'.join(map(str, found['loc']))} is {found['input']!r}; "
            + found["msg"].replace("Input should", "must")
            for found in error.errors()
        ]
        raise TuningError("\n".join(messages)) from error
    return method.plan(draw, sigmas)

"""A LoRA adapter beside a Qwen2-VL, merged into its weights: W + scale * B A.

Frozen judges need no adapter at run time, so peft is not needed either. Its two forms are read: a
whole model with the adapter inside (`X.base_layer.weight`, `X.lora_A.default.weight`), and an
adapter's own file (`X.lora_A.weight`) beside other tensors that its training changed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rewards.core.weight_file import check_keys
from rewards.errors import RewardError
from rewards.qwen.files import new_name

WRAPPER = "base_model.model."
FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])(\.default)?\.weight")


@dataclass(frozen=True)
class LoraScale:
    """How strongly an adapter counts.

    Attributes:
        rank: R.
        alpha: Of `scale = alpha / r`.
        rank_stabilised: `scale = alpha / sqrt(r)` instead (rsLoRA).
    """

    rank: int
    alpha: float
    rank_stabilised: bool = False

    @property
    def value(self) -> float:
        """What B A is multiplied with."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


def plain_name(name: str) -> str:
    """A tensor's new name, without what peft put around it."""
    name = name.removeprefix(WRAPPER)
    return new_name(name.replace(".base_layer.", ".").replace(".modules_to_save.default.", "."))


def merged(
    base: Mapping[str, Tensor],
    others: Mapping[str, Tensor],
    scale: LoraScale | None,
    path: Path,
) -> dict[str, Tensor]:
    """Base weights under what a training left of them.

    Args:
        base: By new name; empty where `others` is a whole model.
        others: As in the file: replaced tensors, and factors A `(r, in)` and B `(out, r)`.
        scale: Of the adapter; `None` where there must be none.
        path: For messages.

    Returns:
        By new name; merged weights are fp32, the others in their files' dtypes.

    Raises:
        RewardError: A factor without its pair or its weight, of another rank, or of another kind
            of adapter.
    """
    result, factors = dict(base), dict[str, dict[str, Tensor]]()
    for name, tensor in others.items():
        match = FACTOR.fullmatch(name)
        if match is not None:
            module = plain_name(match["module"] + ".")
            factors.setdefault(f"{module}weight", {})[match["factor"]] = tensor
        elif "lora_" in name:
            raise RewardError(
                f"{path} holds {name}, an adapter of a kind that this loader does not know; it "
                "reads LoRA on linear layers (lora_A and lora_B)"
            )
        else:
            result[plain_name(name)] = tensor
    if factors and scale is None:
        raise RewardError(
            f"{path} holds a LoRA adapter, but its model_config.json says that there is none "
            "(peft_lora_config.lora_enable). They do not belong together"
        )
    for name, pair in factors.items():
        assert scale is not None
        result[name] = _merged(name, result.get(name), pair, scale, path)
    return result


def _merged(
    name: str, weight: Tensor | None, pair: Mapping[str, Tensor], scale: LoraScale, path: Path
) -> Tensor:
    if weight is None:
        raise RewardError(
            f"{path} adapts {name}, which the model below it does not have. Give the base that the "
            "adapter was trained on"
        )
    out, features = weight.shape
    expected = {"A": torch.Size([scale.rank, features]), "B": torch.Size([out, scale.rank])}
    check_keys(expected, pair, f"the LoRA of rank {scale.rank} on {name}", path)
    return weight.float() + scale.value * (pair["B"].float() @ pair["A"].float())

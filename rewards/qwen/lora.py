"""Merge a LoRA adapter into the weights of a Qwen2-VL: W + scale * B A.

Frozen judges need no adapter at run time, so peft is not needed either. Its two forms are read: a
whole model with the adapter inside (`X.base_layer.weight`, `X.lora_A.default.weight`), and an
adapter's own file (`X.lora_A.weight`), together with other tensors that its training changed.
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
    """The scale of an adapter.

    Attributes:
        rank: R.
        alpha: Alpha in `scale = alpha / r`.
        rank_stabilised: `scale = alpha / sqrt(r)` instead (rsLoRA).
    """

    rank: int
    alpha: float
    rank_stabilised: bool = False

    @property
    def value(self) -> float:
        """The factor of B A."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


def plain_name(name: str) -> str:
    """Return a tensor's new name, without the wrappers of peft."""
    name = name.removeprefix(WRAPPER)
    return new_name(name.replace(".base_layer.", ".").replace(".modules_to_save.default.", "."))


def merged(
    base: Mapping[str, Tensor],
    others: Mapping[str, Tensor],
    scale: LoraScale | None,
    path: Path,
) -> dict[str, Tensor]:
    """Merge what a training changed into the base weights.

    Args:
        base: Base weights by new name; empty if `others` is a whole model.
        others: Tensors as in the file: replaced ones, and factors A `(r, in)` and B `(out, r)`.
        scale: Scale of the adapter; `None` if there must be none.
        path: Path for messages.

    Returns:
        Tensors by new name; merged weights are fp32, the others have their files' dtypes.

    Raises:
        RewardError: A factor lacks its pair or its weight, or has another rank, or the adapter is
            of an unknown kind.
    """
    result, factors = dict(base), dict[str, dict[str, Tensor]]()
    for name, tensor in others.items():
        match = FACTOR.fullmatch(name)
        if match is not None:
            module = plain_name(match["module"] + ".")
            factors.setdefault(f"{module}weight", {})[match["factor"]] = tensor
        elif "lora_" in name:
            raise RewardError(
                f"{path} contains {name}, an adapter of an unknown kind; supported is LoRA on "
                "linear layers (lora_A and lora_B)"
            )
        else:
            result[plain_name(name)] = tensor
    if factors and scale is None:
        raise RewardError(
            f"{path} contains a LoRA adapter, but peft_lora_config.lora_enable of its "
            "model_config.json is false: they do not match. Fetch both again"
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
            f"{path} adapts {name}, which the base model does not have. Give the base that the "
            "adapter was trained on"
        )
    out, features = weight.shape
    expected = {"A": torch.Size([scale.rank, features]), "B": torch.Size([out, scale.rank])}
    check_keys(expected, pair, f"the LoRA of rank {scale.rank} on {name}", path)
    return weight.float() + scale.value * (pair["B"].float() @ pair["A"].float())

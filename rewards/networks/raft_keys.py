"""Convert the names of the original RAFT (`raft-things.pth`) to torchvision's.

One network in two implementations (princeton-vl/RAFT, arXiv 2003.12039; torchvision's
`raft_large`). The original wraps its model for several devices before saving, so that every name
begins with `module.`, and stores the norm of each shortcut twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rewards.errors import RewardError

WRAPPER = "module."
MARK = "fnet.conv1.weight"
"""A name that the original has and torchvision does not."""

ENCODERS = {"fnet": "feature_encoder", "cnet": "context_encoder"}
MOTION = {
    "convc1": "convcorr1.0",
    "convc2": "convcorr2.0",
    "convf1": "convflow1.0",
    "convf2": "convflow2.0",
    "conv": "conv.0",
}
MASK = {"0": "convrelu.0", "2": "conv"}

BLOCK = re.compile(r"(layer\d\.\d)\.(conv|norm)([12])\.(\w+)")
RECURRENT = re.compile(r"gru\.(conv[zrq])([12])\.(\w+)")


def is_original_raft(state: Mapping[str, Tensor]) -> bool:
    """Return whether tensors have the original's names."""
    return MARK in state or WRAPPER + MARK in state


def torchvision_names(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename the original large RAFT's tensors.

    Args:
        state: Tensors by original name, with or without that of the wrapper.
        path: Path for messages.

    Returns:
        Tensors by torchvision's name; a name that the original does not have is kept.

    Raises:
        RewardError: The two copies of a shortcut's norm differ.
    """
    plain = {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}
    result = {}
    for name, tensor in plain.items():
        if ".norm3." in name:
            twin = plain.get(name.replace(".norm3.", ".downsample.1."))
            if twin is None or not torch.equal(twin, tensor):
                raise RewardError(
                    f"{path}: {name} differs from the norm of its shortcut (downsample.1), but in "
                    "every RAFT it is a copy. The file is damaged; fetch it again"
                )
            continue
        result[_renamed(name)] = tensor
    return result


def _renamed(name: str) -> str:
    part, _, rest = name.partition(".")
    if part in ENCODERS:
        return f"{ENCODERS[part]}.{_of_encoder(rest)}"
    if part != "update_block":
        return name
    if match := RECURRENT.fullmatch(rest):
        return f"update_block.recurrent_block.convgru{match[2]}.{match[1]}.{match[3]}"
    area, _, inner = rest.partition(".")
    layer, _, what = inner.partition(".")
    if area == "encoder":
        return f"update_block.motion_encoder.{MOTION.get(layer, layer)}.{what}"
    if area == "mask":
        return f"mask_predictor.{MASK.get(layer, layer)}.{what}"
    return name


def _of_encoder(rest: str) -> str:
    if match := BLOCK.fullmatch(rest):
        return f"{match[1]}.convnormrelu{match[3]}.{int(match[2] == 'norm')}.{match[4]}"
    for own, theirs in (("conv1.", "convnormrelu.0."), ("norm1.", "convnormrelu.1.")):
        if rest.startswith(own):
            return theirs + rest.removeprefix(own)
    return rest.replace("conv2.", "conv.", 1) if rest.startswith("conv2.") else rest

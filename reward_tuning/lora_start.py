"""An adapter that starts from a finished LoRA, such as one fine-tuned on a user's own clips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from reward_tuning.errors import TuningError
from reward_tuning.exports import import_adapter
from reward_tuning.exports.adapter_files import find_adapter
from reward_tuning.lora import LoraSpec, LoraWeights, adapter_state, attach, load_adapter_state
from reward_tuning.sections import LoraSection


def attach_adapter(transformer: nn.Module, lora: LoraSection, *, seed: int) -> list[nn.Parameter]:
    """Attach the adapter that a recipe describes, started where it says.

    Args:
        transformer: The base, without an adapter.
        lora: Of the recipe, resolved.
        seed: Of the start where `init` is null.

    Returns:
        The adapter's parameters, in model order.

    Raises:
        TuningError: The LoRA cannot be read, is for another model, or has another rank, strength or
            other modules than the recipe says.
    """
    parameters = attach(transformer, LoraSpec(lora.rank, lora.alpha, lora.targets), seed=seed)
    if lora.init is not None:
        weights = import_adapter(Path(lora.init), transformer)
        load_adapter_state(transformer, _fitting(weights, lora, adapter_state(transformer)))
    return parameters


def _fitting(
    weights: LoraWeights, lora: LoraSection, own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The LoRA's tensors by the adapter's names."""
    if (weights.rank, weights.alpha) != (lora.rank, lora.alpha):
        raise TuningError(
            f"lora.init: {lora.init} has rank {weights.rank} and alpha {weights.alpha:g}, the "
            f"recipe {lora.rank} and {lora.alpha:g}; set lora.rank={weights.rank} "
            f"lora.alpha={weights.alpha:g}"
        )
    state = {}
    for path, (down, up) in weights.state.items():
        state[f"{path}.lora_A.weight"] = down
        state[f"{path}.lora_B.weight"] = up
    if state.keys() != own.keys():
        missing = sorted(own.keys() - state.keys()) or sorted(state.keys() - own.keys())
        raise TuningError(
            f"lora.init: {lora.init} adapts {len(weights.state)} modules, lora.targets mean "
            f"{len(own) // 2} (the first that differs: {missing[0]}); name the same targets as the "
            "LoRA was trained with"
        )
    return state


def adapter_file(path: Path) -> Path:
    """The file with an adapter's tensors, for its hash.

    Raises:
        TuningError: There is no adapter.
    """
    return find_adapter(path).weights

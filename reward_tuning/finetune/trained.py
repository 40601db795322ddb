"""What a fine-tuning trains: an adapter, or every weight of the transformer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reward_tuning.errors import TuningError
from reward_tuning.lora import adapter_state, load_adapter_state
from reward_tuning.lora_start import attach_adapter
from reward_tuning.sections import LoraSection


@dataclass(frozen=True)
class Trained:
    """Parameters under training, by name.

    Attributes:
        parameters: In model order.
        state: Gives name to tensor, detached and not copied.
        load: Copies tensors in, by name and strictly.
    """

    parameters: list[nn.Parameter]
    state: Callable[[], dict[str, Tensor]]
    load: Callable[[Mapping[str, Tensor]], None]


def trained_part(transformer: Any, lora: LoraSection | None, *, seed: int) -> Trained:
    """Attach the adapter, or thaw every weight.

    Args:
        transformer: Frozen; changed in place.
        lora: None trains everything.
        seed: Of the adapter's start.

    Raises:
        TuningError: See `reward_tuning.lora_start.attach_adapter`.
    """
    if lora is not None:
        parameters = attach_adapter(transformer, lora, seed=seed)
        return Trained(
            parameters,
            lambda: adapter_state(transformer),
            lambda state: load_adapter_state(transformer, state),
        )
    transformer.requires_grad_(True)

    def weights() -> dict[str, Tensor]:
        return {name: p.detach() for name, p in transformer.named_parameters()}

    @torch.no_grad()
    def load(state: Mapping[str, Tensor]) -> None:
        own = weights()
        if own.keys() != state.keys() or any(own[k].shape != state[k].shape for k in own):
            raise TuningError("the weights of the checkpoint are those of another transformer")
        for name, tensor in own.items():
            tensor.copy_(state[name])

    return Trained(list(transformer.parameters()), weights, load)

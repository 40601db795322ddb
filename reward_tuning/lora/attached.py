"""An adapter on a transformer for the length of a context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from reward_tuning.lora.adapter import LoraWeights, adapted_layers, attach_weights
from reward_tuning.lora.schedules import Schedule, scheduled


@contextmanager
def attached(
    transformer: nn.Module,
    weights: LoraWeights,
    strength: float = 1.0,
    schedule: Schedule | None = None,
) -> Iterator[None]:
    """Put an adapter on a transformer and take it off again, whatever happens in between.

    Args:
        transformer: Base model without an adapter; its own weights do not change.
        weights: The adapter.
        strength: Factor on its effect; 0 is the base, bit for bit.
        schedule: Factor on the strength by noise level; None for a constant strength.

    Raises:
        TuningError: The transformer has an adapter already, or the strength is not finite.
    """
    trained = {name: one.requires_grad for name, one in transformer.named_parameters()}
    attach_weights(transformer, weights)
    try:
        with scheduled(transformer, schedule, strength):
            yield
    finally:
        detach(transformer)
        for name, parameter in transformer.named_parameters():
            parameter.requires_grad_(trained[name])


def detach(transformer: nn.Module) -> None:
    """Take the adapter off a transformer, in place; without one, nothing changes."""
    for path, layer in adapted_layers(transformer).items():
        above, _, name = path.rpartition(".")
        setattr(transformer.get_submodule(above), name, layer.get_base_layer())
    if "peft_config" in vars(transformer):  # peft's own record of what it attached
        del transformer.peft_config

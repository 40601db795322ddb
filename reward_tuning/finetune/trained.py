"""The trained part of a generator: an adapter, or every weight of the transformer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.lora.init import attach_adapter
from reward_tuning.progress import ProgressFn
from reward_tuning.runs.training_state import Trained, TrainingState, trained_adapter
from reward_tuning.schema.sections import LoraSection


def trained_part(
    transformer: Any, lora: LoraSection | None, *, seed: int, progress: ProgressFn
) -> Trained:
    """Attach the adapter, or thaw every weight.

    Args:
        transformer: A frozen transformer; changed in place.
        lora: Section of the recipe; None trains every weight.
        seed: Seed of the adapter's start.
        progress: Receives a note where the adapter starts from a LoRA that does nothing.

    Raises:
        TuningError: See `reward_tuning.lora.init.attach_adapter`.
    """
    if lora is not None:
        parameters = attach_adapter(transformer, lora, seed=seed, progress=progress)
        return trained_adapter(transformer, parameters)
    transformer.requires_grad_(True)

    def weights() -> dict[str, Tensor]:
        return {name: p.detach() for name, p in transformer.named_parameters()}

    @torch.no_grad()
    def load(state: Mapping[str, Tensor]) -> None:
        own = weights()
        if own.keys() != state.keys() or any(own[k].shape != state[k].shape for k in own):
            raise TuningError("the checkpoint holds the weights of another transformer")
        for name, tensor in own.items():
            tensor.copy_(state[name])

    return Trained(list(transformer.parameters()), weights, load)


@contextmanager
def exported_weights(trained: Trained, state: TrainingState) -> Iterator[Mapping[str, Tensor]]:
    """Give the model its exported weights within the context: the moving average where it is on."""
    if state.ema is None:
        yield trained.state()
        return
    now = {name: tensor.clone() for name, tensor in trained.state().items()}
    trained.load(state.ema.state)
    try:
        yield trained.state()
    finally:
        trained.load(now)

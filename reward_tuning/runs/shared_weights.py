"""The frozen weights of a training whose processes share them (`generator.memory: sharded`)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from base_model.memory.modes import MODES, Memory
from base_model.memory.sharded import share_blocks, whole_blocks
from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import adapter_parameters
from reward_tuning.section import Section


@dataclass(frozen=True)
class SharedWeights:
    """The weights of a training's generator.

    Attributes:
        transformer: With the adapter attached.
        memory: The recipe's `generator.memory`.
    """

    transformer: Any
    memory: Memory

    def share(self) -> None:
        """Spread the weights over the processes where the recipe asks for it; all call it."""
        if MODES[self.memory].blocks_shared:
            share_blocks(self.transformer, adapter_parameters(self.transformer))

    def whole(self) -> AbstractContextManager[None]:
        """Return a context, entered by all, in which each process may call the model alone."""
        return whole_blocks(self.transformer)


def refuse_alone(recipe: Section, processes: int) -> None:
    """Check that there is somebody to share weights with.

    Args:
        recipe: With a `generator` that has a `memory`.
        processes: Processes of the run.

    Raises:
        TuningError: The recipe shares weights, and there is one process.
    """
    memory = recipe.model_dump(include={"generator": {"memory"}})["generator"]["memory"]
    if MODES[memory].blocks_shared and processes == 1:
        raise TuningError(
            f"generator.memory is {memory}, and this is one process, with nobody to share the "
            "weights with; start several with `torchrun --nproc_per_node N -m reward_tuning.cli "
            "...`, or set generator.memory to resident, offload or block-offload"
        )

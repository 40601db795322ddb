"""Where the frozen weights of a generator are: on the device, or in the CPU's memory.

=============  ==========================================================================
resident       everything on the device
offload        text encoder and VAE (and a trainer's judges) rest on the CPU while unused
block-offload  as offload; the transformer's blocks come one at a time, too
=============  ==========================================================================

No number changes by any of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.memory.offload import Offload

Memory = Literal["resident", "offload", "block-offload"]

BLOCKS = "transformer_blocks."
"""How the names of what lies in a transformer's blocks begin."""

_NOWHERE = torch.device("cpu")


@dataclass(frozen=True)
class Resting:
    """What of a generator rests on the CPU while it is not used; nothing by default.

    Attributes:
        text_encoder: At work while prompts are encoded.
        vae: At work while latents are decoded or frames encoded.
    """

    text_encoder: Offload
    vae: Offload

    @classmethod
    def nothing(cls) -> Resting:
        """Everything is resident."""
        return cls(Offload([], _NOWHERE), Offload([], _NOWHERE))

    @classmethod
    def parts(cls, vae: Any, text_encoder: Any, device: torch.device) -> Resting:
        """A VAE and, where it is not None, a text encoder; both are moved to the CPU."""
        texts = [] if text_encoder is None else [text_encoder]
        return cls(Offload(texts, device), Offload([vae], device))

    @contextmanager
    def vae_for(self, x: Tensor) -> Iterator[None]:
        """Around one call of the VAE on ``x``.

        Raises:
            GeneratorError: When a gradient is wanted, whose graph would outlive the weights.
        """
        if torch.is_grad_enabled() and x.requires_grad and self.vae.absent:
            raise GeneratorError(
                "The VAE rests on the CPU (memory=offload) and a gradient through it is wanted. "
                "Enter generator.resting.vae.at_work() around the call and its backward pass, or "
                "load the generator with memory=resident."
            )
        with self.vae.at_work():
            yield


def block_home(memory: Memory, name: str, device: str | torch.device) -> str | torch.device:
    """Where a transformer's tensor lies: blocks that are streamed on the CPU, all else there."""
    return "cpu" if memory == "block-offload" and name.startswith(BLOCKS) else device

"""The parts of a generator that rest in CPU memory, and where each tensor of the blocks lies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from base_model.core.family import FAMILY
from base_model.errors import GeneratorError
from base_model.memory.modes import MODES, Memory
from base_model.memory.offload import Offload

_NOWHERE = torch.device("cpu")


@dataclass(frozen=True)
class Resting:
    """The parts of a generator that rest on the CPU while they are not used.

    Attributes:
        text_encoder: On the device while prompts are encoded.
        vae: On the device while latents are decoded or frames are encoded.
    """

    text_encoder: Offload
    vae: Offload

    @classmethod
    def nothing(cls) -> Resting:
        """Return a record in which nothing rests."""
        return cls(Offload([], _NOWHERE), Offload([], _NOWHERE))

    @classmethod
    def parts(cls, vae: Any, text_encoder: Any, device: torch.device) -> Resting:
        """Move a VAE and a text encoder to the CPU; None stands for one that stays or is not."""
        texts, vaes = ([] if part is None else [part] for part in (text_encoder, vae))
        return cls(Offload(texts, device), Offload(vaes, device))

    @contextmanager
    def vae_for(self, x: Tensor) -> Iterator[None]:
        """Keep the VAE on the device for one call on `x`.

        Raises:
            GeneratorError: The call needs a gradient, whose graph would outlive the weights.
        """
        if torch.is_grad_enabled() and x.requires_grad and self.vae.absent:
            raise GeneratorError(
                "The VAE rests on the CPU (memory=offload), but the call needs a gradient through "
                "it. Enter generator.resting.vae.at_work() around the call and its backward pass, "
                "or load the generator with memory=resident."
            )
        with self.vae.at_work():
            yield


def block_home(memory: Memory, name: str, device: str | torch.device) -> str | torch.device:
    """Return where a tensor of the transformer lies: the CPU if its block rests, else `device`."""
    return "cpu" if MODES[memory].blocks_rest and name.startswith(FAMILY.block_prefix) else device

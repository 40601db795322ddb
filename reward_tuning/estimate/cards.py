"""GPUs by name: memory and the rate of their matrix units, from their makers' data sheets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from reward_tuning.errors import TuningError

SHARE = 0.4
"""Share of the data sheet's rate that a training step reaches; an assumption, between the 0.3 of
careless and the 0.5 of careful training code."""
CONTEXT = 0.8e9
"""Bytes of a GPU that CUDA, its kernels and the libraries' workspaces take; an assumption."""
ALLOCATOR = 1.05
"""Memory that PyTorch's allocator reserves for each byte in use; an assumption."""


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        name: Its name; empty for one of which only the memory is known.
        memory: Bytes.
        tflops: Dense bfloat16 products with float32 sums, 10^12 operations a second; None where
            it is not known.
    """

    name: str
    memory: float
    tflops: float | None = None

    @property
    def usable(self) -> float:
        """Bytes that tensors can have."""
        return (self.memory - CONTEXT) / ALLOCATOR


CARDS: Mapping[str, Card] = {
    card.name: card
    for card in (
        Card("rtx-4080", 16e9, 97.5),
        Card("rtx-3090", 24e9, 71),
        Card("rtx-4090", 24e9, 165),
        Card("a10", 24e9, 125),
        Card("l4", 24e9, 121),
        Card("rtx-5090", 32e9, 209),
        Card("a40", 48e9, 150),
        Card("a6000", 48e9, 155),
        Card("rtx-6000-ada", 48e9, 364),
        Card("l40s", 48e9, 362),
        Card("a100-40gb", 40e9, 312),
        Card("a100-80gb", 80e9, 312),
        Card("h100", 80e9, 989),
        Card("h200", 141e9, 989),
        Card("b200", 180e9, 2250),
    )
}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*GB", re.IGNORECASE)


def card_of(text: str) -> Card:
    """Return the GPU of a name, or of a size such as `24GB`.

    Raises:
        TuningError: It is neither.
    """
    name = text.strip().lower()
    for card in CARDS.values():
        if _letters(name) == _letters(card.name):
            return card
    if (found := _MEMORY.fullmatch(name)) and float(found[1]) > 0:
        return Card("", float(found[1]) * 1e9)
    meant = f"; did you mean {name}GB?" if name.isdecimal() else ""
    raise TuningError(
        f"--gpu: got {text!r}; allowed: a size such as 24GB, or one of {', '.join(CARDS)}{meant}"
    )


def _letters(name: str) -> str:
    """Return a name as people also type it: without hyphens and spaces."""
    return re.sub(r"[-_ ]", "", name)

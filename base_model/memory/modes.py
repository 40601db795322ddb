"""The memory modes of a generator, in one table: what rests in CPU memory while it is not used.

A new mode is an entry here, its name in `Memory`, and the code that moves the weights; callers ask
the entry and never compare names. No mode changes a number. This module imports no torch, so that
recipes and `--help` can use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Memory = Literal["resident", "offload", "block-offload"]


@dataclass(frozen=True)
class MemoryMode:
    """What rests in CPU memory in one mode.

    Attributes:
        about: Description in help texts, a fragment.
        parts_rest: The text encoder, the VAE and a trainer's judges rest while they are unused.
        blocks_rest: The transformer's blocks rest; each is copied to the device for its forward and
            its backward pass while the one before it computes. Such weights cannot be trained or
            compiled.
    """

    about: str
    parts_rest: bool = False
    blocks_rest: bool = False


MODES: Mapping[str, MemoryMode] = {
    "resident": MemoryMode("all on the device"),
    "offload": MemoryMode(
        "text encoder, VAE and judges in CPU memory while they are unused", parts_rest=True
    ),
    "block-offload": MemoryMode(
        "the transformer's blocks, too, each copied to the device for its forward and its backward "
        "pass while the one before it computes",
        parts_rest=True,
        blocks_rest=True,
    ),
}
MODES_HELP = "; ".join(f"{name}: {mode.about}" for name, mode in MODES.items())
"""The modes as help texts list them."""

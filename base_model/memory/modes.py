"""The memory modes of a generator, in one table: what rests in CPU memory while it is not used.

A new mode is an entry here, its name in `Memory`, and the code that moves the weights; callers ask
the entry and never compare names. No mode changes a number. This module imports no torch, so that
recipes and `--help` can use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Memory = Literal["resident", "offload", "block-offload", "sharded"]


@dataclass(frozen=True)
class MemoryMode:
    """What rests in CPU memory in one mode.

    Attributes:
        about: Description in help texts, a fragment.
        parts_rest: The text encoder, the VAE and a trainer's judges rest while they are unused.
        blocks_rest: The transformer's blocks rest; each is copied to the device for its forward and
            its backward pass while the one before it computes. Such weights cannot be trained or
            compiled.
        blocks_shared: In a training each process keeps a part of the blocks' weights; elsewhere one
            has them all. Such weights cannot be trained, packed or compiled.
    """

    about: str
    parts_rest: bool = False
    blocks_rest: bool = False
    blocks_shared: bool = False


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
    "sharded": MemoryMode(
        "in a training by several processes, each keeps a part of every block and gathers a block "
        "for its forward and its backward pass (FSDP2); samples and evaluations gather all",
        blocks_shared=True,
    ),
}
ALONE: Mapping[str, MemoryMode] = {
    name: mode for name, mode in MODES.items() if not mode.blocks_shared
}
"""The modes of a command that runs in one process."""


def _listed(modes: Mapping[str, MemoryMode]) -> str:
    return "; ".join(f"{name}: {mode.about}" for name, mode in modes.items())


MODES_HELP, ALONE_HELP = _listed(MODES), _listed(ALONE)
"""The modes as help texts list them."""

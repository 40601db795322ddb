"""Frozen modules that rest in CPU memory and are on the device only while they work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from base_model.errors import GeneratorError

CopyFn = Callable[[Tensor, torch.device], Tensor]
"""Copies a resting tensor to the device, or begins to."""


def already_there() -> None:
    """Wait for no copy: those that run in the stream of the computation are there in time."""


def copied(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device; from pinned memory without waiting, in stream order."""
    return tensor.to(device, non_blocking=True)


class Offload:
    """Keep the weights of frozen modules on the CPU, and copies on the device while they work.

    Frozen weights never change, so a copy is discarded and nothing is copied back. For a CUDA
    device the weights rest in pinned memory. If the device is the CPU, everything stays as it is.

    A copy replaces the resting tensor in the module as an object of its own. A graph recorded at
    work therefore keeps the copies it needs, even if the weights rest again before its backward
    pass.

    Args:
        modules: Modules without trainable parameters; they are moved to the CPU at once.
        device: Device on which they work.
        copy: Function that copies a tensor to the device.
        arrived: Called between the copies and their use; lets the computation wait for copies that
            run beside it (`base_model.memory.side_stream`).

    Raises:
        GeneratorError: A parameter is trainable: its updates would be thrown away.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        device: torch.device,
        copy: CopyFn = copied,
        arrived: Callable[[], None] = already_there,
    ) -> None:
        self._device, self._copy, self._arrived = device, copy, arrived
        self._requested: dict[int, Tensor] | None = None
        self._others: tuple[Offload, ...] = ()
        # The tables that hold each tensor; a tied weight is in several.
        self._places: list[tuple[dict[str, Any], str, Tensor]] = [
            (table, name, tensor)
            for module in modules
            for part in module.modules()
            for table in _tables(part)
            for name, tensor in table.items()
            if tensor is not None
        ]
        if any(tensor.requires_grad for _, _, tensor in self._places):
            raise GeneratorError(
                "Only frozen modules can be offloaded; one has trainable parameters. Freeze it "
                "(requires_grad_(False)) or leave it on the device."
            )
        for tensor in {id(tensor): tensor for _, _, tensor in self._places}.values():
            home = tensor.data.cpu()
            tensor.data = home.pin_memory() if device.type == "cuda" else home
        self._depth = 0

    @property
    def absent(self) -> bool:
        """Whether weights that a call on the device needs are resting now."""
        mine = bool(self._places) and not self._depth
        return mine or any(other.absent for other in self._others)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Keep the weights on the device; contexts nest. No forward pass may run after it.

        That includes the forward pass that a checkpoint repeats in the backward pass.
        """
        with ExitStack() as stack:
            for other in self._others:
                stack.enter_context(other.at_work())
            self._depth += 1
            try:
                if self._depth == 1:
                    self._move_in()
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    for table, name, tensor in self._places:
                        table[name] = tensor

    def joined(self, *others: Offload) -> Offload:
        """Return an offload whose context contains the contexts of all of these."""
        both = Offload([], self._device, self._copy)
        both._others = (self, *others)
        return both

    def request(self) -> None:
        """Begin the copies that the next `at_work` will use."""
        if self._depth == 0 and self._requested is None:
            self._requested = self._copies()

    def recall(self) -> None:
        """Drop the copies of a request that no `at_work` has used."""
        if self._requested is not None:
            self._arrived()  # or their memory would be used again while they still write to it
            self._requested = None

    def _move_in(self) -> None:
        copies = self._copies() if self._requested is None else self._requested
        self._requested = None
        self._arrived()
        for table, name, tensor in self._places:
            table[name] = copies[id(tensor)]

    def _copies(self) -> dict[int, Tensor]:
        copies: dict[int, Tensor] = {}
        try:
            for _, _, tensor in self._places:
                if id(tensor) not in copies:
                    copy = self._copy(tensor.data, self._device)
                    if isinstance(tensor, nn.Parameter):
                        copy = nn.Parameter(copy, requires_grad=False)
                    copies[id(tensor)] = copy
        except BaseException:
            self._arrived()  # as in `recall`
            raise
        return copies


def _tables(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    return module._parameters, module._buffers

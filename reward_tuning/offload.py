"""Frozen modules that lie in the CPU's memory and come to the device only while they work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from reward_tuning.errors import TuningError
from reward_tuning.judges import Judge
from rewards import LatentClip
from rewards.base import Judge as FrozenJudge

PhaseFn = Callable[[str], AbstractContextManager[None]]


class Offload:
    """Keeps the weights of frozen modules on the CPU, and copies of them on the device for a while.

    Frozen weights never change, so the copy is thrown away and nothing is copied back. Where the
    device is the CPU, everything stays as it is.

    Args:
        modules: Without trainable parameters; at once moved to the CPU.
        device: Where they work.
        copied: How a tensor gets there.

    Raises:
        TuningError: A parameter is trainable: its updates would be thrown away.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        device: torch.device,
        copied: Callable[[Tensor, torch.device], Tensor] = lambda tensor, device: tensor.to(device),
    ) -> None:
        self._modules, self._device, self._copied = list(modules), device, copied
        found = [t for module in self._modules for t in (*module.parameters(), *module.buffers())]
        if any(tensor.requires_grad for tensor in found):
            raise TuningError("only frozen modules can be offloaded; one has trainable parameters")
        self._resting = [(tensor, tensor.data.cpu()) for tensor in found]
        self._depth = 0
        self._rest()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Have the weights on the device; contexts nest. No graph through them may outlive it."""
        if self._depth == 0:
            for tensor, resting in self._resting:
                tensor.data = self._copied(resting, self._device)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._rest()

    def joined(self, modules: Sequence[nn.Module]) -> Offload:
        """One for these modules, too."""
        return Offload([*self._modules, *modules], self._device, self._copied)

    def during(self, wanted: str, phase: PhaseFn) -> PhaseFn:
        """The same phases, with the weights on the device in the one of that name.

        Moving them counts to that phase, its seconds and its memory.
        """

        @contextmanager
        def entered(name: str) -> Iterator[None]:
            with phase(name):
                if name != wanted:
                    yield
                    return
                with self.at_work():
                    yield

        return entered

    def _rest(self) -> None:
        for tensor, resting in self._resting:
            tensor.data = resting


def judge_modules(judges: Sequence[Judge]) -> list[nn.Module]:
    """The networks of judges.

    Raises:
        TuningError: A judge of another class does not say what it holds.
    """
    modules: list[nn.Module] = []
    for judge in judges:
        if not isinstance(judge.reward, FrozenJudge | LatentClip):
            raise TuningError(
                f"train.offload_judges: {judge.label} is of a class that does not tell its modules "
                f"({type(judge.reward).__name__}); set train.offload_judges=false"
            )
        modules += judge.reward.modules
    return modules

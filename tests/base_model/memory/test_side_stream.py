"""Which stream waits for which, seen by a device of two queues that work as late as they may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from base_model.memory.offload import Offload
from base_model.memory.side_stream import SideStream

CPU = torch.device("cpu")


class Queue:
    """A stream: work that is done only when somebody waits for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.work: list[Callable[[], object]] = []

    def wait_stream(self, other: Queue) -> None:
        ahead = list(other.work)

        def catch_up() -> None:
            for done in ahead:
                if done in other.work:
                    other.run(until=done)

        self.work.append(catch_up)

    def run(self, until: Callable[[], object] | None = None) -> None:
        while self.work:
            first = self.work.pop(0)
            first()
            if first is until:
                return


class Library:
    """Stands for torch.cuda: two queues, and copies that land when their queue gets to them."""

    def __init__(self) -> None:
        self.here = Queue("computation")
        self.side = Queue("copies")
        self._now = self.here

    def Stream(self, device: torch.device) -> Queue:  # noqa: N802, the name in torch.cuda
        return self.side

    def current_stream(self, device: torch.device) -> Queue:
        return self._now

    @contextmanager
    def stream(self, queue: Queue) -> Iterator[None]:
        before, self._now = self._now, queue
        try:
            yield
        finally:
            self._now = before


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    """A device whose copies go into the queue that is current."""
    library, now = Library(), Tensor.copy_

    def late(target: Tensor, source: Tensor, non_blocking: bool) -> Tensor:
        assert non_blocking
        library.current_stream(CPU).work.append(lambda: now(target, source))
        return target

    monkeypatch.setattr(Tensor, "copy_", late)
    return library


def test_a_copy_lands_before_it_is_used_and_not_before_it_must(library: Library) -> None:
    side, real = SideStream(CPU, library), torch.arange(6.0)
    copy = side(real, CPU)
    copy.fill_(-1.0)  # what was in that memory
    library.here.run()
    assert (copy == -1).all()  # nobody has waited: it overlaps
    side.arrived()
    library.here.run()
    assert torch.equal(copy, real)


def test_a_copy_does_not_overwrite_what_the_computation_still_reads(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory that a freed block leaves is written to only when its last product is done."""
    side, seen = SideStream(CPU, library), list[Tensor]()
    old = torch.full((3,), 7.0)
    library.here.work.append(lambda: seen.append(old + 0))  # late
    monkeypatch.setattr(torch, "empty_like", lambda tensor, device: old)  # freed, and used again
    side(torch.zeros(3), CPU)
    library.side.run()
    assert torch.equal(seen[0], torch.full((3,), 7.0))
    assert torch.equal(old, torch.zeros(3))


def test_an_offload_computes_with_what_has_arrived(library: Library) -> None:
    module = nn.Linear(4, 2).requires_grad_(False)
    side, x = SideStream(CPU, library), torch.ones(1, 4)
    expected, found = module(x), list[Tensor]()
    offload = Offload([module], CPU, side, side.arrived)
    offload.request()
    with offload.at_work():
        weights = module.weight, module.bias
        for weight in weights:
            weight.data.fill_(float("nan"))
        library.here.work.append(lambda: found.append(nn.functional.linear(x, *weights)))
    library.here.run()
    assert torch.equal(found[0], expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu() -> None:
    device = torch.device("cuda")
    side = SideStream(device)
    real = torch.randn(1024, 1024).pin_memory()
    copy = side(real, device)
    side.arrived()
    assert torch.equal(copy.cpu(), real)

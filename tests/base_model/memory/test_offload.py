"""Where resting weights are, and when."""

import pytest
import torch
from torch import Tensor, nn

from base_model.errors import GeneratorError
from base_model.memory.offload import Offload
from tests.boundary import Boundary

CPU = torch.device("cpu")


class Copies:
    """Stands for the way to a device: real copies of real weights, counted."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, tensor: Tensor, device: torch.device) -> Tensor:
        self.made += 1
        return tensor.to(device, copy=True)


def places(modules: list[nn.Module]) -> list[int]:
    return [t.data_ptr() for m in modules for t in (*m.parameters(), *m.buffers())]


def test_copies_are_there_only_at_work() -> None:
    module = nn.BatchNorm1d(3).requires_grad_(False)
    module.weight.data = torch.tensor([1.0, 2.0, 3.0])
    resting, copies = places([module]), Copies()
    offload = Offload([module], CPU, copies)
    assert places([module]) == resting
    assert offload.absent
    with pytest.raises(ZeroDivisionError), offload.at_work():
        assert not set(places([module])) & set(resting)
        assert not offload.absent
        assert module.weight.tolist() == [1.0, 2.0, 3.0]
        with offload.at_work():
            working = places([module])
        assert places([module]) == working
        raise ZeroDivisionError
    assert places([module]) == resting
    assert copies.made == len(resting) == 5
    with Offload([module], CPU).at_work():  # the device is the CPU: nothing moves
        assert places([module]) == resting


def test_a_full_device_leaves_everything_at_rest() -> None:
    module = nn.Linear(2, 2).requires_grad_(False)
    resting, weight = places([module]), module.weight

    def full(tensor: Tensor, device: torch.device) -> Tensor:
        if tensor.dim() == 1:
            raise torch.OutOfMemoryError
        return tensor.clone()

    offload = Offload([module], CPU, full)
    with pytest.raises(torch.OutOfMemoryError), offload.at_work():
        pass
    assert places([module]) == resting
    assert module.weight is weight
    assert offload.absent


def test_a_request_is_used_once() -> None:
    module = nn.Linear(2, 2).requires_grad_(False)
    copies, waits = Copies(), []
    offload = Offload([module], CPU, copies, lambda: waits.append(copies.made))
    resting = places([module])
    offload.request()
    offload.request()  # it is on its way already
    assert (copies.made, waits) == (2, [])
    assert places([module]) == resting  # not before it is used
    with offload.at_work():
        assert (copies.made, waits) == (2, [2])
        offload.request()  # it is there
        assert copies.made == 2
    with offload.at_work():
        assert (copies.made, waits) == (4, [2, 4])


def test_a_request_that_nothing_uses_is_waited_for_and_dropped() -> None:
    module = nn.Linear(2, 2).requires_grad_(False)
    boundary, waits = Boundary(), []
    offload = Offload([module], CPU, boundary, lambda: waits.append(boundary.bytes))
    boundary.close([module])
    offload.recall()
    assert waits == []
    offload.request()
    offload.recall()
    assert waits == [24]  # six floats, there still while it waits
    assert boundary.bytes == 0
    with offload.at_work():
        assert module.weight.isfinite().all()
        assert boundary.copies == 4


def test_a_copy_that_fails_lets_the_others_arrive() -> None:
    module, waits = nn.Linear(2, 2).requires_grad_(False), []

    def full(tensor: Tensor, device: torch.device) -> Tensor:
        if tensor.dim() == 1:
            raise torch.OutOfMemoryError
        return tensor.clone()

    offload = Offload([module], CPU, full, lambda: waits.append("wait"))
    with pytest.raises(torch.OutOfMemoryError):
        offload.request()
    assert waits == ["wait"]


def test_a_tied_weight_is_copied_once() -> None:
    first, second = (nn.Linear(2, 2, bias=False).requires_grad_(False) for _ in range(2))
    second.weight = first.weight
    copies = Copies()
    with Offload([nn.Sequential(first, second)], CPU, copies).at_work():
        assert copies.made == 1
        assert second.weight is first.weight


def test_a_graph_keeps_the_copies_it_needs() -> None:
    module = nn.Linear(2, 2).requires_grad_(False)
    expected = module.weight.sum(dim=0)
    real = module.weight.data.clone()
    offload = Offload([module], CPU, lambda t, device: real.clone() if t.dim() == 2 else t.clone())
    module.weight.data.fill_(float("nan"))
    x = torch.ones(1, 2, requires_grad=True)
    with offload.at_work():
        y = module(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad[0], expected)


def test_joined_work_together_and_may_work_alone() -> None:
    first, second = (nn.Linear(2, 2).requires_grad_(False) for _ in range(2))
    copies = Copies()
    a, b = Offload([first], CPU, copies), Offload([second], CPU, copies)
    both = a.joined(b)
    assert both.absent
    with b.at_work():
        assert both.absent
        with both.at_work():  # b is there already and is not copied again
            assert copies.made == 4
            assert not both.absent
        assert not b.absent
        assert a.absent
    assert both.absent
    nothing = Offload([], CPU)
    assert not nothing.absent
    assert nothing.joined(a).absent


def test_what_is_trained_is_refused() -> None:
    with pytest.raises(GeneratorError, match="Only frozen modules can be offloaded"):
        Offload([nn.Linear(2, 2)], CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_of_the_device() -> None:
    device = torch.device("cuda")
    module = nn.Linear(1024, 1024).requires_grad_(False).to(device)
    x = torch.randn(2, 1024, device=device)
    expected, before = module(x), torch.cuda.memory_allocated()
    offload = Offload([module], device)
    assert torch.cuda.memory_allocated() <= before - 4 * 1024 * 1024
    assert module.weight.device.type == "cpu"
    assert module.weight.is_pinned()
    with offload.at_work():
        assert module.weight.device.type == "cuda"
        assert torch.equal(module(x), expected)
    assert torch.cuda.memory_allocated() <= before - 4 * 1024 * 1024

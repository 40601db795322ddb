"""What a convolution takes for itself, against what the CPU allocates."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from benchmarks.peak_memory import peak_allocated
from reward_tuning.estimate.live_memory import LiveMemory

of_512_bits = pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX512"),
    reason="oneDNN's blocks are known on CPUs with 512-bit vectors alone",
)
SHAPES = [
    ((1, 8, 3, 20, 16), (4, 8, 3, 3, 3)),  # columns
    ((1, 8, 3, 20, 16), (4, 8, 1, 1, 1)),  # one by one: none
    pytest.param((2, 8, 3, 20, 16), (4, 8, 3, 3, 3), marks=of_512_bits),  # several clips: oneDNN
    pytest.param((1, 64, 6, 64, 16), (4, 64, 3, 3, 3), marks=of_512_bits),  # large: oneDNN
]


@pytest.mark.parametrize(("inputs", "weights"), SHAPES)
def test_forward(inputs: tuple[int, ...], weights: tuple[int, ...]) -> None:
    padding = weights[-1] // 2

    def run(device: str) -> None:
        x, w = torch.zeros(inputs, device=device), torch.zeros(weights, device=device)
        F.conv3d(x, w, padding=padding)

    real = peak_allocated(lambda: run("cpu"), torch.device("cpu"))
    memory = LiveMemory(lambda: "", cpu=True)
    with memory:
        run("meta")
    found = sum(memory.peaks[""].values())
    assert found == pytest.approx(real, rel=0.03)


def test_on_a_gpu_none_are_counted() -> None:
    memory = LiveMemory(lambda: "")
    with memory:
        x, w = (torch.zeros(shape, device="meta") for shape in ((1, 8, 3, 20, 16), (4, 8, 3, 3, 3)))
        y = F.conv3d(x, w, padding=1)
    assert sum(memory.peaks[""].values()) == x.nbytes + w.nbytes + y.nbytes

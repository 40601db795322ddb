"""Bytes of tensors alive, by hand."""

from __future__ import annotations

import torch

from reward_tuning.estimate.live_memory import LiveMemory

N = 1000


def test_a_peak_is_what_lives_at_a_time() -> None:
    phase = ["first"]
    memory = LiveMemory(lambda: phase[0])
    with memory:
        x = torch.empty(N, device="meta")
        y = x + 1
        z = y.view(10, 100)  # the same storage
        del y, z
        phase[0] = "second"
        w = x.to(torch.bfloat16)
    assert sum(memory.peaks["first"].values()) == 2 * 4 * N
    assert sum(memory.peaks["second"].values()) == 4 * N + 2 * N
    assert w.numel() == N
    del x, w
    assert not memory.now


def test_a_graph_holds_what_it_needs_for_its_backward_pass() -> None:
    x = torch.empty(N, device="meta", requires_grad=True)
    memory = LiveMemory(lambda: "")
    with memory:
        y = x.exp().sin()  # exp holds its output, which is also what sin holds
        assert sum(memory.now.values()) == 2 * 4 * N
        y.sum().backward()
        del y
    assert sum(memory.now.values()) == 4 * N  # the gradient


def test_tensors_have_names() -> None:
    memory = LiveMemory(lambda: "")
    weight = torch.empty(N, device="meta")
    elsewhere = torch.empty(N)
    memory.name([weight, weight[:10], elsewhere], "weights")
    assert memory.now == {"weights": 4 * N}
    with memory:
        out = weight * 2
    assert memory.now == {"weights": 4 * N, "activations": 4 * N}
    memory.name([out], "gradients")
    assert memory.now == {"weights": 4 * N, "gradients": 4 * N}


def test_peaks_can_begin_anew() -> None:
    memory = LiveMemory(lambda: "")
    with memory:
        torch.empty(N, device="meta")
        memory.begin()
        torch.empty(10, device="meta")
    assert sum(memory.peaks[""].values()) == 40

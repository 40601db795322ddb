"""What one step holds at its peak: bytes autograd saves, and bytes the allocator gives out.

The second is the one that counts on a GPU. The first leaves out what lives for a moment only, and
what a checkpointed part saves when it is computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.contestants import Contestant
from reward_tuning.judges.judge import FramedJudge
from rewards.kinds.hps import HpsReward
from tests.reward_tuning.live_bytes import LiveBytes


@dataclass(frozen=True)
class Peak:
    """Of one step, in bytes.

    Attributes:
        saved: Of distinct storages saved for backward, weights left out.
        allocated: More than at the step's begin.
    """

    saved: int
    allocated: int


def peak_of(contestant: Contestant) -> Peak:
    """Measure one step, after another that puts the optimiser's moments in place."""
    contestant.step()
    live = LiveBytes(frozen_tensors(contestant))

    def step() -> None:
        with live:
            contestant.step()

    allocated = peak_allocated(step, contestant.accelerator.device)
    return Peak(live.peak, allocated)


def frozen_tensors(contestant: Contestant) -> list[torch.Tensor]:
    """Weights and buffers of generator and judge, and the adapter: no activation."""
    generator = contestant.parts.sampler.generator
    (judge,) = contestant.parts.judges
    assert isinstance(judge, FramedJudge)
    assert isinstance(judge.reward, HpsReward)
    modules = [generator.transformer, generator.vae, judge.reward.tower.model]
    return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]


def peak_allocated(step: Callable[[], None], device: torch.device) -> int:
    """Most bytes that a call has in use beyond those in use before it.

    On a CUDA device by its allocator's own account, elsewhere by the profiler's list of every
    allocation and release on the CPU.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    results = profiler.profiler.kineto_results
    changes = [event for event in results.events() if event.name() == "[memory]"]
    now = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        now += change.nbytes()
        peak = max(peak, now)
    return peak

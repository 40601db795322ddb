"""One step of any training: gradient, update, guards, and the row of metrics.jsonl.

The training gives a function that leaves the gradient of its batches in `.grad`; everything after
it is the same for all. A step makes one optimiser update, and as many further ones as the training
has gradients for without drawing anything new.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import psutil
import torch
from accelerate import Accelerator
from torch import nn

from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.runs.guards import StepFacts
from reward_tuning.runs.optimiser import learning_rate
from reward_tuning.runs.out_of_memory import PhaseOutOfMemory, leave_together, ran_out
from reward_tuning.runs.ranks import largest_of_all, mean_gradient
from reward_tuning.runs.signals import OUT_OF_MEMORY, WAITING, PhaseLeft, StepInterrupted
from reward_tuning.runs.training_state import Trained, TrainingState
from reward_tuning.schema.loop_section import LoopSection


class PhaseClock:
    """Measure seconds and peak memory of each phase of a step.

    Memory is the allocator's peak on a CUDA device; elsewhere, the process's resident size at the
    end of the phase.

    Args:
        device: Device that computes the phase.
        on_phase: Called with a phase's name as it begins.

    Attributes:
        seconds: Time of each phase.
        memory: Bytes of each phase.
    """

    def __init__(
        self, device: torch.device, on_phase: Callable[[str], None] = lambda name: None
    ) -> None:
        self._device = device
        self._on_phase = on_phase
        self._process = psutil.Process()
        self.seconds: dict[str, float] = defaultdict(float)
        self.memory: dict[str, int] = defaultdict(int)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a phase; a phase entered again adds to its seconds.

        Raises:
            PhaseOutOfMemory: Memory ran out in it.
        """
        self._on_phase(name)
        cuda = self._device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self._device)
        began = time.perf_counter()
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            raise PhaseOutOfMemory(name, error) from error
        if cuda:
            torch.cuda.synchronize(self._device)
            used = torch.cuda.max_memory_allocated(self._device)
        else:
            used = self._process.memory_info().rss
        self.seconds[name] += time.perf_counter() - began
        self.memory[name] = max(self.memory[name], used)


class Further(Protocol):
    """Further updates within a step, on what its first one has drawn."""

    def gradient(self, clock: PhaseClock) -> bool:
        """Leave the next update's gradient in `.grad`, which is empty; return whether there is one.

        Every process returns the same.
        """

    def columns(self, norms: Sequence[float]) -> Mapping[str, Any]:
        """Return columns of the row, given the gradient's norm in each further update made."""


@dataclass(frozen=True)
class StepMeans:
    """The outcome of a step's batches, over all of them and all processes.

    Attributes:
        loss: Mean loss.
        shown: Numbers for the progress display.
        columns: The training's own columns of the row.
        why_zero: Explain a gradient of zero; called only where it is needed.
        max_grad_norm: Clip the gradient's norm to this; None for no clipping.
        further: Further updates after the first; None for none.
    """

    loss: float
    shown: Mapping[str, float]
    columns: Mapping[str, Any]
    why_zero: Callable[[], str]
    max_grad_norm: float | None
    further: Further | None = None


Average = Callable[[], StepMeans]
Backward = Callable[[PhaseClock, dict[str, float]], Average]
"""Leave the gradient of a step's batches in `.grad`, timing its phases, and return what averages
their numbers over the processes. The dictionary holds numbers to display during the step."""


def take_step(
    train: LoopSection,
    trained: Trained,
    state: TrainingState,
    accelerator: Accelerator,
    progress: ProgressFn,
    backward: Backward,
    draws: int,
    *,
    meets: bool = False,
) -> dict[str, Any]:
    """Make one update and the further ones of the step; skip it where it is not finite.

    Args:
        train: Section of the recipe.
        trained: What is trained.
        state: State of the run; advanced by one step and `draws`.
        accelerator: Processes of the run.
        progress: Receives the phases, warnings and numbers of the step.
        backward: Computes the gradient.
        draws: Clips or batches that the step draws, on all processes.
        meets: Processes exchange something within `backward`, so that none may leave it early.

    Returns:
        The step's row of metrics.jsonl.

    Raises:
        StepInterrupted: A signal ends the step, which has changed nothing.
        StepOutOfMemory: Memory ran out before the update; likewise.
    """
    step, shown = state.step + 1, dict[str, float]()
    may_leave = accelerator.num_processes == 1 or not meets

    def on_phase(name: str) -> None:
        if may_leave and WAITING.number:
            raise PhaseLeft
        progress(ProgressEvent("training", step - 1, train.steps, name, shown))

    clock = PhaseClock(accelerator.device, on_phase)
    state.optimiser.zero_grad(set_to_none=True)
    average, failed = _gradient(backward, clock, shown, may_leave=may_leave)
    mine = WAITING.number if failed is None else OUT_OF_MEMORY
    if number := int(largest_of_all(mine, accelerator)):
        if number == OUT_OF_MEMORY:
            leave_together(failed, step, accelerator)
        raise StepInterrupted(number)
    assert average is not None
    may_leave = False  # from here on the step changes the weights, and is made to its end
    with clock("update"):  # with its waiting for slower processes
        means = average()
        rate = learning_rate(train, step) * state.rate_factor
        norm = update(trained, state, accelerator, means, rate, draws)
    facts = StepFacts(step, means.loss, norm, _finite(means.loss, norm), means.why_zero)
    further: Mapping[str, Any] = {}
    if means.further is not None:
        norms = []
        if facts.taken:
            norms = further_updates(means.further, clock, trained, state, accelerator, means, rate)
        further = means.further.columns(norms)
    for warning in (guard.warn(facts) for guard in state.guards):
        if warning:
            progress(ProgressEvent("training", step, train.steps, note=warning))
    progress(ProgressEvent("training", step, train.steps, "", means.shown))
    return {
        "step": step,
        "loss": means.loss,
        **means.columns,
        **further,
        "grad_norm": norm,
        "learning_rate": rate,
        "bad_steps": state.bad_steps,
        "seconds": dict(clock.seconds) | {"step": sum(clock.seconds.values())},
        "memory": dict(clock.memory),
    }


def _gradient(
    backward: Backward, clock: PhaseClock, shown: dict[str, float], *, may_leave: bool
) -> tuple[Average | None, PhaseOutOfMemory | None]:
    """Make the phases before the update; return no average where a signal or memory ends them."""
    with suppress(PhaseLeft):
        try:
            return backward(clock, shown), None
        except PhaseOutOfMemory as error:
            if not may_leave:  # the other processes wait within theirs, and notice the end of this
                raise
            return None, error
    return None, None


def further_updates(
    further: Further,
    clock: PhaseClock,
    trained: Trained,
    state: TrainingState,
    accelerator: Accelerator,
    means: StepMeans,
    rate: float,
) -> list[float]:
    """Make the further updates of a step, until one has no gradient or is not finite.

    Returns:
        The gradient's norm before clipping, of each update made.
    """
    norms: list[float] = []
    while True:
        state.optimiser.zero_grad(set_to_none=True)
        if not further.gradient(clock):
            return norms
        with clock("update"):
            norm = descend(trained, state, accelerator, means, rate)
        if not math.isfinite(norm):
            return norms
        norms.append(norm)


def update(
    trained: Trained,
    state: TrainingState,
    accelerator: Accelerator,
    means: StepMeans,
    rate: float,
    draws: int,
) -> float:
    """Make the first update of a step, and count the step.

    The step counts even where it is skipped: its draws are used up, so that a resumed run, which
    finds its place by step and position alone, does not draw them again.

    Returns:
        The gradient's norm before clipping.
    """
    norm = descend(trained, state, accelerator, means, rate)
    good = _finite(means.loss, norm)
    state.step += 1
    state.position += draws
    state.bad_steps += not good
    state.bad_in_a_row = 0 if good else state.bad_in_a_row + 1
    state.idle_steps += good and norm == 0
    return norm


def descend(
    trained: Trained,
    state: TrainingState,
    accelerator: Accelerator,
    means: StepMeans,
    rate: float,
) -> float:
    """Average the gradient over the processes, clip it, and let the optimiser take its step.

    Loss and gradient that are not finite change nothing.

    Returns:
        The gradient's norm before clipping.
    """
    mean_gradient(trained.parameters, accelerator)
    limit = means.max_grad_norm or math.inf  # an infinite limit only measures the norm
    norm = float(nn.utils.clip_grad_norm_(trained.parameters, limit))
    # One infinite gradient would destroy the optimiser's moments for good, and the weights with it.
    if _finite(means.loss, norm):
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        state.optimiser.step()
        if state.ema is not None:
            state.ema.update(trained.state())
    return norm


def _finite(loss: float, norm: float) -> bool:
    return math.isfinite(loss) and math.isfinite(norm)

"""What a device holds at the peak of each phase of a run, in bytes, by what it is.

A step of training and its evaluation run on the meta device with two or three numbers of blocks
(`step_cost.along_blocks`); `live_memory` follows their tensors. Weights that rest elsewhere or are
stored packed are taken from the sum (`stored`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from base_model.generator import Generator
from reward_tuning.estimate.flop_meter import Counted, FlopMeter
from reward_tuning.estimate.fused_attention import fused_attention
from reward_tuning.estimate.live_memory import ACTIVATIONS, LiveMemory
from reward_tuning.estimate.shapes import Shape
from reward_tuning.estimate.step_cost import along_blocks
from reward_tuning.estimate.step_parts import Parts, Where, watched
from reward_tuning.estimate.stored import EVALUATION, HELD_OUT, SAMPLES, adjusted
from reward_tuning.estimate.text_encoder_size import (
    text_encoder_activations,
    text_encoder_weights,
)
from reward_tuning.judges.judge import Judge
from reward_tuning.judges.offload import judge_modules
from reward_tuning.runs.training_state import Trained, TrainingState
from reward_tuning.schema.sections import GeneratorSection

PHASES = (
    *("text", "choice", "rollout", "reward", "clips", "gradient", "sweep", "replay", "update"),
    *(EVALUATION, HELD_OUT, SAMPLES),
)
"""Phases in their order; a run has those that its recipe asks for."""
TRANSFORMER, ADAPTER, GRADIENTS, OPTIMISER = "transformer", "adapter", "gradients", "optimiser"
DECODER, JUDGES, TEXT_ENCODER = "decoder", "judges", "text encoder"
PARTS = (
    *(TRANSFORMER, TEXT_ENCODER, DECODER, JUDGES),
    *(ADAPTER, GRADIENTS, OPTIMISER, ACTIVATIONS),
)
"""What memory holds: weights, what is trained and for it, and the rest. `decoder` is the VAE."""

Memory = dict[str, dict[str, float]]
"""Phase to part to bytes."""
_WORK = "work"
_BYTES = ""


@dataclass(frozen=True)
class Followed:
    """What was followed on the meta device, with all weights on the device and none packed.

    Attributes:
        memory: Phase to part to bytes.
        work: Operations by phase and part (`step_parts`).
    """

    memory: Memory
    work: Mapping[Where, float]

    def operations(self, phase: str, parts: Sequence[str]) -> float:
        """Return the operations of some parts of a phase."""
        return sum(
            count for (of, part), count in self.work.items() if of == phase and part in parts
        )

    def operations_but(self, phase: str, parts: Sequence[str]) -> float:
        """Return the operations of all other parts of a phase."""
        every = sum(n for (of, _), n in self.work.items() if of == phase)
        return every - self.operations(phase, parts)


@dataclass(frozen=True)
class Networks:
    """What a device holds before the first step.

    Attributes:
        generator: On the meta device.
        judges: Judges of training.
        trained: What is trained of the generator.
        state: State before the first step.
        frozen_base: Whether what is trained is an adapter, and not the transformer itself.
        waiting: Whether gradients of an earlier batch of the step wait for the update.
    """

    generator: Generator
    judges: Sequence[Judge]
    trained: Trained
    state: TrainingState
    frozen_base: bool = True
    waiting: bool = False


Measured = Mapping[Counted, float]
"""Bytes by phase and part, and operations by phase and part, each with what it is."""
Body = Callable[[LiveMemory], None]
"""A step and an evaluation; it names what it loads besides."""


def follow(networks: Networks, where: Parts, body: Body, *, cpu: bool) -> Measured:
    """Run a step and an evaluation on the meta device.

    Args:
        networks: What there is before; `where` listens to their calls from now on.
        where: Tells the phase that runs.
        body: Runs them.
        cpu: Count what convolutions take for themselves on a CPU.
    """
    generator, trained, state = networks.generator, networks.trained, networks.state
    memory = LiveMemory(lambda: where.phase, cpu=cpu)
    watched(generator, networks.judges, where)
    memory.name(tensors_of(generator.transformer), TRANSFORMER)
    memory.name(tensors_of(generator.vae), DECODER)
    if generator.small_decoder is not None:
        memory.name(tensors_of(generator.small_decoder), DECODER)
    name_judges(memory, networks.judges)
    if networks.frozen_base:
        memory.name(trained.parameters, ADAPTER)
    for one in trained.parameters:
        one.register_post_accumulate_grad_hook(
            lambda of: memory.name([of.grad] if of.grad is not None else [], GRADIENTS)
        )
    meter = FlopMeter(where)
    with fused_attention(), memory, meter:
        _make_moments(memory, trained, state)
        if networks.waiting:
            _let_gradients_wait(memory, trained, state.optimiser)
        memory.begin()
        meter.flops.clear()
        body(memory)
    found: dict[Counted, float] = {
        (phase, part, _BYTES): float(size)
        for phase, parts in memory.peaks.items()
        for part, size in parts.items()
        if phase in PHASES
    }
    for (phase, part, _), count in meter.flops.items():
        found[phase, part, _WORK] = found.get((phase, part, _WORK), 0.0) + count
    return found


def along(run: Callable[[Shape], Measured], shape: Shape) -> Followed:
    """Follow what few blocks hold and compute to the blocks of a model.

    Args:
        run: Follows a model with few blocks.
        shape: Shapes of the networks.
    """
    memory: Memory = {}
    work: dict[Where, float] = {}
    for (phase, part, what), number in along_blocks(run, shape).items():
        if what == _WORK:
            work[phase, part] = number
        else:
            memory.setdefault(phase, {})[part] = number
    return Followed({phase: memory[phase] for phase in PHASES if phase in memory}, work)


def tensors_of(module: Any) -> list[Tensor]:
    """Return parameters and buffers of a network."""
    return [*module.parameters(), *module.buffers()]


def name_judges(memory: LiveMemory, judges: Iterable[Judge]) -> None:
    """Say which tensors are judges."""
    for module in judge_modules([one for one in judges if hasattr(one.reward, "modules")]):
        memory.name(tensors_of(module), JUDGES)


def text_memory(generator: GeneratorSection, shape: Shape, judges: float) -> dict[str, float]:
    """Return what a device holds while prompts are encoded, before the generator is loaded.

    Args:
        generator: Section of the recipe.
        shape: Shapes of the networks.
        judges: Bytes of the judges, which are there already.
    """
    size = getattr(torch, generator.dtype).itemsize
    config = shape.text_encoder
    if "vision_config" not in config or generator.text_encoder_device is not None:
        return {JUDGES: judges}  # a shape of tests, or an encoder elsewhere
    return {
        TEXT_ENCODER: text_encoder_weights(config) * size,
        JUDGES: judges,
        ACTIVATIONS: text_encoder_activations(config, shape.text[0]) * size,
    }


def phase_memory(
    generator: GeneratorSection, shape: Shape, memory: Memory, *, gpus: int, rows: int
) -> Memory:
    """Return what a device holds with the weights where and as a recipe has them.

    Args:
        generator: Section of the recipe.
        shape: Shapes of the networks.
        memory: As followed.
        gpus: GPUs that share the run; 0 for the CPU, where nothing rests elsewhere.
        rows: Tokens of a call of the transformer, of all clips and branches.
    """
    return {
        phase: adjusted(generator, shape, phase, parts, gpus=gpus, rows=rows)
        for phase, parts in memory.items()
    }


def peak(memory: Memory) -> tuple[str, float]:
    """Return the phase that needs most, and its bytes."""
    return max(((name, sum(of.values())) for name, of in memory.items()), key=lambda one: one[1])


def largest_of_each(every: Sequence[Memory]) -> Memory:
    """Return each phase as it is where it needs most."""
    found: Memory = {}
    for memory in every:
        for phase, parts in memory.items():
            if sum(parts.values()) > sum(found.get(phase, {}).values()):
                found[phase] = parts
    return {phase: found[phase] for phase in PHASES if phase in found}


def _let_gradients_wait(
    memory: LiveMemory, trained: Trained, optimiser: torch.optim.Optimizer
) -> None:
    """Let the step begin with gradients, as it goes on after its first batch."""
    plain = optimiser.zero_grad

    def zero_grad(set_to_none: bool = True) -> None:
        optimiser.zero_grad = plain  # type: ignore[method-assign]
        plain(set_to_none)
        for one in trained.parameters:
            one.grad = torch.zeros_like(one)
        memory.name((one.grad for one in trained.parameters if one.grad is not None), GRADIENTS)

    optimiser.zero_grad = zero_grad  # type: ignore[method-assign]


def _make_moments(memory: LiveMemory, trained: Trained, state: TrainingState) -> None:
    """Let the optimiser have its moments, as from the second step on."""
    for one in trained.parameters:
        one.grad = torch.zeros_like(one)
    state.optimiser.step()
    state.optimiser.zero_grad(set_to_none=True)
    for of in state.optimiser.state.values():
        memory.name((one for one in of.values() if isinstance(one, Tensor)), OPTIMISER)
    if state.ema is not None:
        memory.name(state.ema.state.values(), OPTIMISER)

"""What a device holds at the peak of each phase of a run, in bytes, by what it is.

The step that training runs, and the sampling and judging of an evaluation, run on the meta device
with two or three numbers of blocks (`step_cost.along_blocks`); `live_memory` follows their tensors.
Weights that rest elsewhere or are stored packed are taken from the sum (`stored`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from base_model.core.family import FAMILY
from base_model.sampling.sigmas import sigma_table
from reward_tuning.estimate.flop_meter import Counted, FlopMeter
from reward_tuning.estimate.fused_attention import fused_attention
from reward_tuning.estimate.live_memory import ACTIVATIONS, LiveMemory
from reward_tuning.estimate.random_parts import random_parts
from reward_tuning.estimate.shapes import Shape
from reward_tuning.estimate.stand_in_judges import is_known, judges_for_shape
from reward_tuning.estimate.step_cost import META, along_blocks
from reward_tuning.estimate.step_parts import REST, Parts, watched
from reward_tuning.estimate.step_parts import TRANSFORMER as TRANSFORMER_PARTS
from reward_tuning.estimate.stored import adjusted
from reward_tuning.estimate.text_encoder_size import (
    text_encoder_activations,
    text_encoder_weights,
)
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.judges.offload import judge_modules
from reward_tuning.runs.training_state import TrainingState
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.parts import RunParts
from reward_tuning.tuning.trainer import optimiser_step, start

EVALUATION = "evaluation"
BRANCHES = 2
"""Guidance branches in one call of the transformer."""
FOLLOWED_STEPS = 2
"""Sampler steps of the evaluation that is followed: more of them hold no more."""
PHASES = ("text", "choice", "rollout", "reward", "sweep", "replay", "update", EVALUATION)
"""Phases in their order; a run has those that its recipe asks for."""
TRANSFORMER, ADAPTER, GRADIENTS, OPTIMISER = "transformer", "adapter", "gradients", "optimiser"
DECODER, JUDGES, TEXT_ENCODER = "decoder", "judges", "text encoder"
PARTS = (
    *(TRANSFORMER, TEXT_ENCODER, DECODER, JUDGES),
    *(ADAPTER, GRADIENTS, OPTIMISER, ACTIVATIONS),
)
"""What memory holds: frozen weights, what is trained and for it, and the rest."""

Memory = dict[str, dict[str, float]]
"""Phase to part to bytes."""


@dataclass(frozen=True)
class Followed:
    """What was followed on the meta device, with all weights on the device and none packed.

    Attributes:
        memory: Phase to part to bytes.
        sampled: Operations of an evaluation's batch: of one sampler step.
        judged: Those of its decoder and judges.
    """

    memory: Memory
    sampled: float
    judged: float


def followed(recipe: Recipe, shape: Shape, step: int, *, cpu: bool = False) -> Followed:
    """Follow what a device holds at each phase's peak.

    Args:
        recipe: Resolved, as `counted_recipe` leaves it.
        shape: Shapes of the networks.
        step: Index of the optimiser step that is followed, from 0: it decides the plan.
        cpu: Count what convolutions take for themselves on a CPU.
    """

    def count(of: Shape) -> Mapping[Counted, float]:
        memory, meter = _run(recipe, of, step, cpu=cpu)
        flops = {"sampled": 0.0, "judged": 0.0}
        for (phase, part, _), number in meter.flops.items():
            if phase == EVALUATION:
                flops["sampled" if part in TRANSFORMER_PARTS else "judged"] += number
        sizes = {
            (phase, part, ""): float(size)
            for phase, parts in memory.peaks.items()
            for part, size in parts.items()
            if phase in PHASES
        }
        return sizes | {("flops", name, ""): number for name, number in flops.items()}

    found: Memory = {}
    for (phase, part, _), size in along_blocks(count, shape).items():
        found.setdefault(phase, {})[part] = size
    flops = found.pop("flops")
    found["text"] = _text(recipe, shape, found["rollout"].get(JUDGES, 0.0))
    memory = {phase: found[phase] for phase in PHASES if phase in found}
    return Followed(memory, flops["sampled"] / FOLLOWED_STEPS, flops["judged"])


def phase_memory(recipe: Recipe, shape: Shape, memory: Memory, *, gpus: int) -> Memory:
    """Return what a device holds with the weights where and as a recipe has them.

    Args:
        recipe: Resolved.
        shape: Shapes of the networks.
        memory: As followed.
        gpus: GPUs that share the run; 0 for the CPU, where nothing rests elsewhere.
    """
    rows = BRANCHES * recipe.train.batch_size * (shape.text[0] + _tokens(recipe, shape))
    return {
        phase: adjusted(recipe.generator, shape, phase, parts, gpus=gpus, rows=rows)
        for phase, parts in memory.items()
    }


def _tokens(recipe: Recipe, shape: Shape) -> int:
    """Return the tokens of a clip."""
    sampling = recipe.sampling
    stride = FAMILY.space_stride * shape.transformer["patch_size"]
    frames = FAMILY.latent_frames(sampling.frames)
    return frames * (sampling.height // stride) * (sampling.width // stride)


def peak(memory: Memory) -> tuple[str, float]:
    """Return the phase that needs most, and its bytes."""
    return max(((name, sum(of.values())) for name, of in memory.items()), key=lambda one: one[1])


def _text(recipe: Recipe, shape: Shape, judges: float) -> dict[str, float]:
    size = getattr(torch, recipe.generator.dtype).itemsize
    config = shape.text_encoder
    if "vision_config" not in config or recipe.generator.text_encoder_device is not None:
        return {JUDGES: judges}  # a shape of tests, or an encoder elsewhere
    return {
        TEXT_ENCODER: text_encoder_weights(config) * size,
        JUDGES: judges,
        ACTIVATIONS: text_encoder_activations(config, shape.text[0]) * size,
    }


def _run(
    recipe: Recipe, shape: Shape, step: int, *, cpu: bool = False
) -> tuple[LiveMemory, FlopMeter]:
    """Follow one optimiser step and one batch of an evaluation."""
    where = Parts()
    memory = LiveMemory(lambda: where.phase, cpu=cpu)
    parts = random_parts(recipe, shape, META)
    generator = parts.sampler.generator
    watched(generator, parts.judges, where)
    state = start(recipe, parts)
    memory.name(_tensors(generator.transformer), TRANSFORMER)
    memory.name(_tensors(generator.vae), DECODER)
    if generator.small_decoder is not None:
        memory.name(_tensors(generator.small_decoder), DECODER)
    for module in judge_modules([one for one in parts.judges if hasattr(one.reward, "modules")]):
        memory.name(_tensors(module), JUDGES)
    memory.name(parts.trained.parameters, ADAPTER)
    for one in parts.trained.parameters:
        one.register_post_accumulate_grad_hook(
            lambda of: memory.name([of.grad] if of.grad is not None else [], GRADIENTS)
        )
    meter = FlopMeter(where)
    with fused_attention(), memory, meter:
        _make_moments(memory, parts, state)
        memory.begin()
        state.step = step
        optimiser_step(recipe, parts, state, Accelerator(cpu=True), where.on_progress)
        _evaluate(memory, recipe, shape, parts, where)
    return memory, meter


def _tensors(module: Any) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _make_moments(memory: LiveMemory, parts: RunParts, state: TrainingState) -> None:
    """Let the optimiser have its moments, as from the second step on."""
    for one in parts.trained.parameters:
        one.grad = torch.zeros_like(one)
    state.optimiser.step()
    state.optimiser.zero_grad(set_to_none=True)
    for of in state.optimiser.state.values():
        memory.name((one for one in of.values() if isinstance(one, torch.Tensor)), OPTIMISER)
    if state.ema is not None:
        memory.name(state.ema.state.values(), OPTIMISER)


@torch.no_grad()
def _evaluate(
    memory: LiveMemory, recipe: Recipe, shape: Shape, parts: RunParts, where: Parts
) -> None:
    """Sample, decode and judge one batch, as an evaluation does."""
    where.go(REST, EVALUATION)
    for one in parts.trained.parameters:
        one.grad = None
    frames = recipe.sampling.frames
    held_out = [one for one in recipe.evaluation.held_out_rewards if is_known(one, shape)]
    judges = [*parts.judges, *judges_for_shape(held_out, shape, frames, META)]
    for module in judge_modules([one for one in judges if hasattr(one.reward, "modules")]):
        memory.name(_tensors(module), JUDGES)
    clips = recipe.evaluation.batch_size or recipe.train.batch_size
    prompts = [parts.stream.prompts[0]] * clips
    latents = parts.sampler.latents(prompts, range(clips), sigma_table(FOLLOWED_STEPS))
    frames_seen = parts.sampler.generator.decode(latents)
    texts: Sequence[str] = [prompt.reward_text for prompt in prompts]
    for judge in judges:
        if isinstance(judge, FramedJudge):
            judge.scores(frames_seen, texts)
    where.go(REST, REST)

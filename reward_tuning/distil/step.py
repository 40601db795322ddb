"""One batch of a distillation: the gradient of every phase's loss, at the student's own states."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from base_model.sampling.sample import euler_sample
from reward_tuning.distil.parts import DistilParts
from reward_tuning.distil.phases import phase_losses
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.lora.adapter import scaled


def distil_batch(
    parts: DistilParts, prompts: Sequence[Prompt], seeds: Sequence[int], *, share: float
) -> list[float]:
    """Add a batch's gradient to `.grad` of the adapter, phase by phase.

    Only one phase has a graph at a time, so memory is that of one training step of b clips. The
    teacher is the same model with the adapter off.

    Args:
        parts: Everything that was loaded.
        prompts: b prompts.
        seeds: b seeds of the noise.
        share: Weight of this batch in the optimiser step, such as 1 / accumulation.

    Returns:
        The loss of each phase; their mean is what is minimised.
    """
    sampler, table = parts.teacher, parts.table
    generator, condition = sampler.generator, sampler.condition(prompts)

    def student(x: Tensor, sigma: Tensor) -> Tensor:
        return generator.velocity(x, sigma.to(x), condition.positive)

    def teacher(x: Tensor, levels: Tensor) -> Tensor:
        with scaled(generator.transformer, 0.0):
            return euler_sample(generator, condition, x, levels, sampler.guidance)

    noise = sampler.noise(seeds).to(generator.device, generator.state_dtype)
    found = []
    for loss in phase_losses(student, teacher, noise, table):
        (loss * (share / len(table))).backward()
        found.append(float(loss.detach()))
    return found

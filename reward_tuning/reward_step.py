"""One batch of a reward-tuning update: rollout, reward gradient, adjoint sweep.

A function of explicit inputs. It knows no recipe, no optimiser and no folder; the trainer calls it
once per accumulated batch and finds the gradient in the parameters' `.grad`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from base_model.guidance import NegativeBranch
from reward_tuning.engine import (
    StepReport,
    adjoint_sweep,
    read_reward_input,
    reward_gradient,
    rollout,
)
from reward_tuning.judges import FramedJudge, judged_window
from reward_tuning.lora import scaled
from reward_tuning.losses import guidance_divisor, reward_loss
from reward_tuning.plan import Plan
from reward_tuning.prompts import Prompt
from reward_tuning.sampler import ClipSampler

PhaseFn = Callable[[str], AbstractContextManager[None]]
"""Entered around `rollout`, `reward` and `sweep`, to time and show them."""


@dataclass(frozen=True)
class Batch:
    """What one batch draws.

    Attributes:
        prompts: One a clip.
        noise_seeds: One a clip.
        plan: Which steps of the sampler receive gradient.
    """

    prompts: Sequence[Prompt]
    noise_seeds: Sequence[int]
    plan: Plan


@dataclass(frozen=True)
class BatchReport:
    """What a batch showed.

    Attributes:
        loss: Weighted sum of the judges' losses, before it is divided by the guidance scale; NaN
            where latents or frames were not finite.
        rewards: Mean score of each judge.
        motion: Mean |difference of neighbouring latent frames| of the reward input.
        drift: Mean square distance of the active steps' velocities to the base's; None where no
            anchor is on.
        steps: The active steps as the sweep saw them; empty after a loss that is not finite.
    """

    loss: float
    rewards: dict[str, float]
    motion: float
    drift: float | None = None
    steps: tuple[StepReport, ...] = field(default=())

    @property
    def finite(self) -> bool:
        """Whether the batch left a gradient that can be used, as far as its loss tells."""
        return math.isfinite(self.loss)


def reward_step(
    sampler: ClipSampler,
    judges: Sequence[FramedJudge],
    batch: Batch,
    sigmas: Tensor,
    *,
    negative: NegativeBranch,
    parameters: Sequence[Tensor],
    anchor: float = 0.0,
    share: float = 1.0,
    phase: PhaseFn = lambda name: nullcontext(),
) -> BatchReport:
    """Differentiate the judges' loss of one batch; add the gradient to the parameters' `.grad`.

    Args:
        sampler: The generator with its adapter attached.
        judges: At least one.
        batch: Prompts, noise and plan.
        sigmas: `(N + 1,)`, the sampler's table.
        negative: The negative guidance branch in the gradient.
        parameters: Of the adapter.
        anchor: Weight of the mean square distance of the velocity to the base's, on active steps.
        share: Factor of the gradient: 1 / number of accumulated batches.
        phase: Entered around each phase.

    Returns:
        The numbers of the batch. With a loss that is not finite nothing was added.
    """
    condition = sampler.condition([prompt.text for prompt in batch.prompts])
    velocity = sampler.velocity_of_one_rollout(condition, sigmas, negative)
    with phase("rollout"):
        states = rollout(velocity, sampler.noise(batch.noise_seeds), sigmas, batch.plan.stop)
        x = read_reward_input(velocity, states, batch.plan)
    motion = latent_motion(x)
    rewards: dict[str, float] = {}
    if not bool(x.isfinite().all()):
        return BatchReport(math.nan, rewards, motion)

    def loss_of(latents: Tensor) -> Tensor:
        window = judged_window(judges)
        frames = sampler.generator.decode(latents, window)
        if not bool(frames.isfinite().all()):
            return frames.sum()  # NaN or Inf: judges refuse such frames, the trainer skips the step
        texts = [prompt.reward_text for prompt in batch.prompts]
        loss = frames.new_zeros(())
        for judge in judges:
            scores = judge.scores(frames, texts, first=window.start)
            rewards[judge.label] = float(scores.detach().mean())
            loss = loss + reward_loss(scores, weight=judge.weight, target=judge.target)
        return loss

    with phase("reward"):
        loss, g = reward_gradient(loss_of, x)
    if not bool(loss.isfinite() & g.isfinite().all()):
        return BatchReport(math.nan, rewards, motion)
    base_velocity = sampler.velocity(condition, sigmas, negative)

    def pull_to_base(i: int, x: Tensor, v: Tensor) -> Tensor:
        with torch.no_grad(), scaled(sampler.generator.transformer, 0.0):  # the adapter off
            base = base_velocity(x, i)
        return anchor * share * (v - base).square().mean()

    with phase("sweep"):
        report = adjoint_sweep(
            velocity,
            states,
            sigmas,
            batch.plan,
            g * (share / guidance_divisor(sampler.guidance_scale, negative)),
            step_loss=pull_to_base if anchor else None,
            parameters=parameters,
        )
    steps = tuple(step for step in report.steps if step.active)
    drift = report.step_loss / (anchor * share * len(steps)) if anchor else None
    return BatchReport(float(loss), rewards, motion, drift, steps)


def latent_motion(latents: Tensor) -> float:
    """Mean |difference of neighbouring latent frames| of `(b, 16, t, h, w)`; 0 for t = 1."""
    if latents.shape[2] < 2:
        return 0.0
    return float(latents.diff(dim=2).abs().mean())

"""Where the judges of a batch look: the rollout without gradient, and what is read from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from base_model.generator import GuidedCondition
from base_model.guidance import NegativeBranch
from reward_tuning.cheap_steps import CheapSteps, cheap_rollout
from reward_tuning.engine import VelocityFn, leap_likeness, read_renoised, read_reward_input
from reward_tuning.plan import Plan
from reward_tuning.sampler import ClipSampler
from reward_tuning.seeds import derive_seed


@dataclass(frozen=True)
class View:
    """One place where the judges look, and how its gradient goes back.

    Attributes:
        x: The reward input, a batch of latents.
        velocity: Of the states that lead there.
        states: Of the rollout, or the one noised state of a fresh look.
        sigmas: The velocity's table.
        plan: Of the sweep over these states.
        first: What is added to the indices of its steps in the report.
        share: Factor of its gradient.
        clip_weights: `(b,)`, factor of each clip's loss; None for 1.
    """

    x: Tensor
    velocity: VelocityFn
    states: list[Tensor]
    sigmas: Tensor
    plan: Plan
    first: int = 0
    share: float = 1.0
    clip_weights: Tensor | None = None


@dataclass(frozen=True)
class RolledOut:
    """What a batch's rollout found.

    Attributes:
        views: At least one.
        steps: Steps of the sampler.
        full_steps: Those of them that ran every block of the transformer.
    """

    views: list[View]
    steps: int
    full_steps: int


def rolled_out(
    sampler: ClipSampler,
    condition: GuidedCondition,
    noise_seeds: Sequence[int],
    plan: Plan,
    sigmas: Tensor,
    negative: NegativeBranch,
    cheap: CheapSteps,
) -> RolledOut:
    """Roll out without gradient, and collect what the plan wants judged."""
    velocity = sampler.velocity_of_one_rollout(condition, sigmas, negative)
    chain = cheap_rollout(
        sampler,
        condition,
        velocity,
        sampler.noise(noise_seeds),
        sigmas,
        plan.stop,
        negative=negative,
        exact=plan.visited,
        cheap=cheap,
    )
    states = chain.states
    views = []
    if plan.active:
        x = read_reward_input(velocity, states, plan)
        likeness = None if plan.leap_floor is None else leap_likeness(states, sigmas, plan)
        views.append(View(x, velocity, states, sigmas, plan, clip_weights=likeness))
    for number, renoised in enumerate(plan.renoised):
        table = torch.tensor([renoised.sigma, 0.0], dtype=sigmas.dtype, device=sigmas.device)
        look = sampler.velocity_of_one_rollout(condition, table, negative)
        noise = sampler.noise([derive_seed(seed, "look", number) for seed in noise_seeds])
        state, x = read_renoised(look, states, noise, renoised)
        views.append(
            View(
                x,
                look,
                [state],
                table,
                plan.look(renoised),
                first=plan.steps + number,
                share=renoised.share,
            )
        )
    return RolledOut(views, plan.stop, chain.full_steps)

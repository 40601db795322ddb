"""The rollout of the two prompts with cheap steps, and with none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from reward_tuning.gradient.engine import rollout
from reward_tuning.sampling.cheap_steps import CheapSteps, cheap_rollout
from reward_tuning.sampling.sampler import ClipSampler, RolloutVelocity
from reward_tuning.schema.cache_kinds import FirstBlock
from tests.reward_tuning.double_sampler import PROMPTS, SIGMAS


def first_block(threshold: float | None) -> CheapSteps:
    return CheapSteps(None if threshold is None else FirstBlock(threshold=threshold))


def walked(
    sampler: ClipSampler, cheap: CheapSteps, exact: tuple[int, ...], negative: Any = "detached"
) -> tuple[list[Tensor], int]:
    condition = sampler.condition([prompt.text for prompt in PROMPTS])
    velocity = RolloutVelocity(replace(sampler, negative=negative), condition, SIGMAS)
    found = cheap_rollout(velocity, sampler.noise([7, 8]), 4, exact=exact, cheap=cheap)
    return found.states, found.full_steps


def exact_states(sampler: ClipSampler, negative: Any = "detached") -> list[Tensor]:
    condition = sampler.condition([prompt.text for prompt in PROMPTS])
    velocity = replace(sampler, negative=negative).velocity(condition, SIGMAS)
    return rollout(velocity, sampler.noise([7, 8]), SIGMAS, 4)

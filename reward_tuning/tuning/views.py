"""Where the judges of a batch look: the rollout without gradient, and what is read from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from base_model.generator import GuidedCondition
from base_model.sampling.guidance import NegativeBranch
from reward_tuning.errors import TuningError
from reward_tuning.gradient.active_sets import shares_of
from reward_tuning.gradient.engine import read_renoised, read_reward_input
from reward_tuning.gradient.leaps import leap_likeness
from reward_tuning.gradient.plan import Plan
from reward_tuning.gradient.restarts import Restart
from reward_tuning.sampling.cheap_steps import CheapSteps, Rollout, cheap_rollout
from reward_tuning.sampling.sampler import ClipSampler, RolloutVelocity, first_state
from reward_tuning.seeds import derive_seed


@dataclass(frozen=True)
class View:
    """One place where the judges look, and how its gradient goes back.

    Attributes:
        x: The reward input, a batch of latents.
        velocity: Of the states that lead there.
        states: Of the rollout, or the one noised state of a fresh look.
        sigmas: The velocity's table.
        plans: Of the sweeps over these states, each with its share, together 1.
        first: What is added to the indices of its steps in the report.
        share: Factor of its gradient.
        clip_weights: `(b,)`, factor of each clip's loss; None for 1.
    """

    x: Tensor
    velocity: RolloutVelocity
    states: list[Tensor]
    sigmas: Tensor
    plans: Mapping[Plan, float]
    first: int = 0
    share: float = 1.0
    clip_weights: Tensor | None = None

    @property
    def plan(self) -> Plan:
        """The first of them: all read the same."""
        return next(iter(self.plans))


@dataclass(frozen=True)
class RolledOut:
    """What a batch's rollout found.

    Attributes:
        views: At least one.
        steps: Steps of the sampler, those of restarts included.
        full_steps: Those of them that ran every block of the transformer.
    """

    views: list[View]
    steps: int
    full_steps: int


def rolled_out(
    sampler: ClipSampler,
    condition: GuidedCondition,
    noise_seeds: Sequence[int],
    plans: Sequence[Plan],
    sigmas: Tensor,
    negative: NegativeBranch,
    cheap: CheapSteps,
    restarts: Sequence[Restart] = (),
    video: Tensor | None = None,
) -> RolledOut:
    """Roll out without gradient, and collect what is to be judged.

    Args:
        sampler: The generator with its adapter attached.
        condition: Of b clips.
        noise_seeds: One a clip.
        plans: At least one; several share a reward gradient.
        sigmas: `(N + 1,)`, the sampler's table.
        negative: The negative guidance branch.
        cheap: How the steps without gradient are computed.
        restarts: Further chains from the end of the first, which must reach it.
        video: Latents that the rollout starts from, noised; None for noise alone.

    Raises:
        TuningError: Plans that do not go together.
    """

    def chain(
        start: Tensor, plans: Sequence[Plan], table: Tensor, first: int
    ) -> tuple[Rollout, list[View]]:
        shares = shares_of(plans)
        plan = plans[0]
        velocity = sampler.velocity_of_one_rollout(condition, table, negative)
        walked = cheap_rollout(
            sampler,
            condition,
            velocity,
            start,
            table,
            plan.stop,
            negative=negative,
            exact={i for plan in shares for i in plan.visited},
            cheap=cheap,
        )
        if not plan.active:
            return walked, []
        x = read_reward_input(velocity, walked.states, plan)
        likeness = None
        if plan.leap_floor is not None:
            likeness = leap_likeness(walked.states, table, plan.leaps, plan.leap_floor)
        view = View(x, velocity, walked.states, table, shares, first, clip_weights=likeness)
        return walked, [view]

    start = first_state(sampler.noise(noise_seeds), video, sigmas)
    walked, views = chain(start, plans, sigmas, 0)
    views += fresh_looks(sampler, condition, noise_seeds, plans[0], walked.states, sigmas, negative)
    every = [walked]
    for number, restart in enumerate(restarts):
        if plans[0].reward_input != "end":
            raise TuningError("train.restarts: the rollout stops before the end it shall restart")
        noise = sampler.noise([derive_seed(seed, "restart", number) for seed in noise_seeds])
        s = float(sigmas[restart.first])
        start = (1.0 - s) * walked.states[-1] + s * noise
        again, found = chain(start, restart.plans, sigmas[restart.first :], restart.first)
        every.append(again)
        views += found
    return RolledOut(
        views,
        sum(len(of.states) - 1 for of in every),
        sum(of.full_steps for of in every),
    )


def fresh_looks(
    sampler: ClipSampler,
    condition: GuidedCondition,
    noise_seeds: Sequence[int],
    plan: Plan,
    states: list[Tensor],
    sigmas: Tensor,
    negative: NegativeBranch,
) -> list[View]:
    """The views of a plan's `renoised`, from the states of its rollout; without gradient."""
    views = []
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
                {plan.look(renoised): 1.0},
                first=plan.steps + number,
                share=renoised.share,
            )
        )
    return views

"""The rollout of a batch, without gradient, and the latents of it that the judges see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from base_model.generator import GuidedCondition
from reward_tuning.errors import TuningError
from reward_tuning.gradient.engine import read_renoised, read_reward_input, rollout
from reward_tuning.gradient.leaps import leap_likeness
from reward_tuning.gradient.plan import Plan
from reward_tuning.gradient.reuse import shares_of
from reward_tuning.sampling.cheap_steps import CheapSteps, Rollout, cheap_rollout
from reward_tuning.sampling.sampler import ClipSampler, RolloutVelocity, first_state
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.draws import Batch


@dataclass(frozen=True)
class View:
    """Latents that the judges see, and the way of their gradient back to the parameters.

    Attributes:
        x: The reward input, a batch of latents.
        velocity: The velocity that the sweep runs again.
        states: States of the rollout, or the one noised state of a fresh look.
        sigmas: The velocity's table.
        plans: Plans of the sweeps over these states, each with its share; the shares add up to 1.
        first: Offset of its step indices in the report.
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
        """The first plan; all of them read the same latents."""
        return next(iter(self.plans))


@dataclass(frozen=True)
class RolledOut:
    """The end of a batch's rollout.

    Attributes:
        views: At least one.
        steps: Sampler steps, including those of restarts.
        full_steps: Sampler steps that ran every block of the transformer.
    """

    views: list[View]
    steps: int
    full_steps: int


def rolled_out(
    sampler: ClipSampler, batch: Batch, sigmas: Tensor, cheap: CheapSteps | None = None
) -> RolledOut:
    """Roll out a batch without gradient, and collect the latents to be judged.

    Args:
        sampler: The generator with its adapter attached.
        batch: Prompts, noise, plans and restarts.
        sigmas: `(N + 1,)`, the sampler's table.
        cheap: How the steps without gradient are computed; None computes each one exactly.

    Raises:
        TuningError: Plans that cannot share a rollout.
    """
    condition, video = sampler.condition(batch.prompts), sampler.video(batch.prompts)

    def chain(
        start: Tensor, plans: Sequence[Plan], table: Tensor, first: int
    ) -> tuple[Rollout, list[View]]:
        plan = plans[0]
        shares = {plan: 1.0} if len(plans) == 1 else shares_of(plans)
        velocity = RolloutVelocity(sampler, condition, table)
        if cheap is None:
            walked = Rollout(rollout(velocity, start, table, plan.stop), plan.stop)
        else:
            exact = {i for plan in shares for i in plan.visited}
            walked = cheap_rollout(velocity, start, plan.stop, exact=exact, cheap=cheap)
        if not plan.active:  # judged by its fresh looks alone
            return walked, []
        x = read_reward_input(velocity, walked.states, plan)
        likeness = None
        if plan.leap_floor is not None:
            likeness = leap_likeness(walked.states, table, plan.leaps, plan.leap_floor)
        view = View(x, velocity, walked.states, table, shares, first, clip_weights=likeness)
        return walked, [view]

    plan, seeds = batch.plan, batch.noise_seeds
    start = first_state(sampler.noise(seeds), video, sigmas)
    walked, views = chain(start, (plan, *batch.more_plans), sigmas, 0)
    views += fresh_looks(sampler, condition, seeds, plan, walked.states, sigmas)
    every = [walked]
    for number, restart in enumerate(batch.restarts):
        if plan.reward_input != "end":
            raise TuningError(
                f"train.restarts: the rollout stops at step {plan.stop} of {plan.steps}, so it has "
                "no end to restart from; set method.early_stop=false or train.restarts=0"
            )
        noise = sampler.noise([derive_seed(seed, "restart", number) for seed in seeds])
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
) -> list[View]:
    """Return the views of a plan's `renoised`, from the states of its rollout; without gradient."""
    views = []
    for number, renoised in enumerate(plan.renoised):
        table = torch.tensor([renoised.sigma, 0.0], dtype=sigmas.dtype, device=sigmas.device)
        look = RolloutVelocity(sampler, condition, table)
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

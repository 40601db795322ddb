"""The rollout of a batch, and the latents of it that the judges see.

Without gradient, except for steps that keep their graph for the sweep (`gradient.kept`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from base_model.generator import GuidedCondition
from reward_tuning.errors import TuningError
from reward_tuning.gradient.engine import read_renoised, read_reward_input, rollout
from reward_tuning.gradient.kept import KeptGraphs
from reward_tuning.gradient.leaps import leap_likeness
from reward_tuning.gradient.plan import Plan
from reward_tuning.gradient.reuse import further_shares, shares_of
from reward_tuning.sampling.cheap_steps import CheapSteps, Rollout, cheap_rollout
from reward_tuning.sampling.sampler import ClipSampler, RolloutVelocity, first_state
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.draws import Batch

Keeping = Callable[[RolloutVelocity, Iterable[Plan]], KeptGraphs | None]
"""The velocity of a chain with as many of its graphs kept as there is room for; None for none."""


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
        kept: Steps that the sweep does not run again; None where it runs all of them.
        later: Plans of each further update on these states, as `plans`.
    """

    x: Tensor
    velocity: RolloutVelocity
    states: list[Tensor]
    sigmas: Tensor
    plans: Mapping[Plan, float]
    first: int = 0
    share: float = 1.0
    clip_weights: Tensor | None = None
    kept: KeptGraphs | None = None
    later: tuple[Mapping[Plan, float], ...] = ()

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
        kept_steps: Steps that kept their graph, those of restarts and fresh looks included.
    """

    views: list[View]
    steps: int
    full_steps: int
    kept_steps: int


def rolled_out(
    sampler: ClipSampler,
    batch: Batch,
    sigmas: Tensor,
    cheap: CheapSteps | None = None,
    keep_graphs: int = 0,
) -> RolledOut:
    """Roll out a batch, and collect the latents to be judged.

    Args:
        sampler: The generator with its adapter attached.
        batch: Prompts, noise, plans and restarts.
        sigmas: `(N + 1,)`, the sampler's table.
        cheap: How the steps without gradient are computed; None computes each one exactly.
        keep_graphs: Number of steps that keep their graph, over all chains and looks; the first
            ones of the sweep.

    Raises:
        TuningError: Plans that cannot share a rollout.
    """
    room = 0 if cheap is not None and not cheap.keeps_graphs(sampler) else keep_graphs
    condition, video = sampler.condition(batch.prompts), sampler.video(batch.prompts)

    def keeping(velocity: RolloutVelocity, plans: Iterable[Plan]) -> KeptGraphs | None:
        nonlocal room
        if not room:
            return None
        kept = KeptGraphs(velocity, plans, room, velocity.with_gradient)
        room -= len(kept.steps)
        return kept if kept.steps else None

    def chain(
        start: Tensor,
        plans: Sequence[Plan],
        further: Sequence[Sequence[Plan]],
        table: Tensor,
        first: int,
    ) -> tuple[Rollout, list[View]]:
        plan = plans[0]
        shares = {plan: 1.0} if len(plans) == 1 else shares_of(plans)
        later = tuple(further_shares(plan, of) for of in further)
        velocity = RolloutVelocity(sampler, condition, table)
        kept = keeping(velocity, shares)
        if cheap is None:
            walked = Rollout(rollout(kept or velocity, start, table, plan.stop), plan.stop)
        else:
            exact = {i for of in (shares, *later) for plan in of for i in plan.visited}
            walked = cheap_rollout(velocity, start, plan.stop, exact=exact, cheap=cheap, kept=kept)
        if not plan.active:  # judged by its fresh looks alone
            return walked, []
        x = read_reward_input(kept or velocity, walked.states, plan)
        likeness = None
        if plan.leap_floor is not None:
            likeness = leap_likeness(walked.states, table, plan.leaps, plan.leap_floor)
        view = View(x, velocity, walked.states, table, shares, first, 1.0, likeness, kept, later)
        return walked, [view]

    plan, seeds = batch.plan, batch.noise_seeds
    start = first_state(starting_noise(sampler, batch), video, sigmas)
    walked, views = chain(start, (plan, *batch.more_plans), batch.later_plans, sigmas, 0)
    looks = fresh_looks(sampler, condition, seeds, plan, walked.states, sigmas, keeping)
    # A look is of one noise level, and so is its plan: further updates sweep it again.
    views += [replace(look, later=(look.plans,) * len(batch.later_plans)) for look in looks]
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
        table = sigmas[restart.first :]
        again, found = chain(start, restart.plans, restart.later, table, restart.first)
        every.append(again)
        views += found
    return RolledOut(
        views,
        sum(len(of.states) - 1 for of in every),
        sum(of.full_steps for of in every),
        sum(len(view.kept.steps) for view in views if view.kept is not None),
    )


def starting_noise(sampler: ClipSampler, batch: Batch) -> Tensor:
    """Return the noise of a batch, `(b, 16, t, h, w)`.

    A near batch has sqrt(1 - d^2) e + d e', as normal as e itself, with new noise e'.
    """
    noise = sampler.noise(batch.noise_seeds)
    if batch.near is None:
        return noise
    number, distance = batch.near
    other = sampler.noise([derive_seed(seed, "near", number) for seed in batch.noise_seeds])
    return math.sqrt(1.0 - distance**2) * noise + distance * other


def fresh_looks(
    sampler: ClipSampler,
    condition: GuidedCondition,
    noise_seeds: Sequence[int],
    plan: Plan,
    states: list[Tensor],
    sigmas: Tensor,
    keeping: Keeping,
) -> list[View]:
    """Return the views of a plan's `renoised`, from the states of its rollout.

    `keeping` decides whether a look keeps its graph; apart from that there is no gradient.
    """
    views = []
    for number, renoised in enumerate(plan.renoised):
        table = torch.tensor([renoised.sigma, 0.0], dtype=sigmas.dtype, device=sigmas.device)
        look = RolloutVelocity(sampler, condition, table)
        noise = sampler.noise([derive_seed(seed, "look", number) for seed in noise_seeds])
        seen = plan.look(renoised)
        kept = keeping(look, [seen])
        state, x = read_renoised(kept or look, states, noise, renoised)
        views.append(
            View(
                x,
                look,
                [state],
                table,
                {seen: 1.0},
                first=plan.steps + number,
                share=renoised.share,
                kept=kept,
            )
        )
    return views

"""One batch of a reward-tuning update: rollout, reward gradient, adjoint sweep.

A function of explicit inputs: it knows no recipe, no optimiser and no folder. The trainer calls it
once for each accumulated batch and finds the gradient in the parameters' `.grad`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from base_model.networks.small_decoder import DecodedBy
from reward_tuning.gradient.engine import StepLossFn, StepReport, SweepOptions, adjoint_sweep
from reward_tuning.gradient.losses import (
    Merge,
    conflict_free_gradient,
    guidance_gain,
    summed_gradient,
)
from reward_tuning.judges.background import Asking, AtOnce
from reward_tuning.judges.clip_terms import ClipTerms
from reward_tuning.judges.judge import FramedJudge, Judge, LatentJudge
from reward_tuning.judges.judging import Verdicts, on_frames, on_latents
from reward_tuning.lora.adapter import scaled
from reward_tuning.sampling.cheap_steps import CheapSteps
from reward_tuning.sampling.sampler import ClipSampler, RolloutVelocity
from reward_tuning.seeds import derive_generator, derive_seed
from reward_tuning.tuning.draws import Batch
from reward_tuning.tuning.estimated import (
    Asked,
    Estimates,
    NearClips,
    ask,
    estimated_judges,
    estimated_verdicts,
    exact_judges,
    near_clips,
)
from reward_tuning.tuning.views import RolledOut, View, rolled_out

PhaseFn = Callable[[str], AbstractContextManager[None]]
"""Context around `rollout`, `reward` and `sweep`, to time and show them."""


@dataclass(frozen=True)
class Judged:
    """A rollout with its reward gradient: what each update's sweep needs.

    Attributes:
        views: Latents that the judges saw, and the way back to the parameters.
        gradients: Gradient of the loss at each view's latents.
        gain: Factor of guidance in the velocity's derivative (`losses.guidance_gain`).
        seed: Seed of the anchored steps (`anchored_steps`).
    """

    views: Sequence[View]
    gradients: Sequence[Tensor]
    gain: float
    seed: int


@dataclass(frozen=True)
class BatchReport:
    """Measurements of one batch.

    Attributes:
        loss: Weighted sum of the judges' losses, before the division by the guidance scale; the
            mean over the views. NaN if latents or frames were not finite.
        rewards: Mean score of each judge.
        motion: Mean |difference of neighbouring latent frames| of the reward input.
        drift: Mean square distance of the active steps' velocities to the base's; None without an
            anchor.
        steps: Reports of the active steps; empty after a loss that is not finite. The c-th fresh
            look at the end has index N + c; a restart's steps have the table's indices.
        rollout_steps: Sampler steps of the rollout.
        full_steps: Sampler steps that ran every block of the transformer.
        kept_steps: Steps that kept their graph from the rollout.
        judged: What further updates on this batch sweep; None where its draws have none.
        spread: How far the scores lie apart that each estimated judge compares.
    """

    loss: float
    rewards: dict[str, float]
    motion: float
    drift: float | None = None
    steps: tuple[StepReport, ...] = field(default=())
    rollout_steps: int = 0
    full_steps: int = 0
    kept_steps: int = 0
    judged: Judged | None = None
    spread: dict[str, float] = field(default_factory=dict)

    @property
    def finite(self) -> bool:
        """True if the loss is finite; otherwise the batch added no gradient."""
        return math.isfinite(self.loss)


@dataclass(frozen=True)
class StepOptions:
    """The choices of a recipe that hold for every batch.

    Attributes:
        divide_by_guidance: With a detached negative branch, divide the loss by the guidance scale.
            The gradient that flows through the states is divided in any case.
        anchor: Weight of the mean square distance of the velocity to the base's, on active steps.
        anchor_steps: Active steps, at most, that it is computed on (`anchored_steps`); None = all.
        share: Factor of the gradient: 1 / number of accumulated batches.
        adjoint_limit: Limit of the gradient through the states, in multiples of its first length.
        normalise_steps: Give each active step's contribution one norm; together they have `share`.
        steps_at_once: Active steps swept in one call where no gradient flows through their states.
        merge: How the judges' gradients become one.
        terms: Terms on whole clips that join judges of frames.
        cheap: How the rollout computes the steps that the sweep does not need; None computes them
            exactly.
        decoder: What shows the clips to the judges (`Generator.decode`).
        keep_graphs: Steps of a batch that keep their graph from the rollout, at most; the sweep
            runs the others again.
        estimates: How the gradients of judges are estimated; None where all are exact.
        agreed: Whether a batch is good on every process, given whether it is on this one. Where the
            processes share weights, all sweep or none does; elsewhere each decides for itself.
    """

    divide_by_guidance: bool = True
    anchor: float = 0.0
    anchor_steps: int | None = None
    share: float = 1.0
    adjoint_limit: float | None = None
    normalise_steps: bool = False
    steps_at_once: int = 1
    merge: Merge = "sum"
    terms: ClipTerms = field(default_factory=ClipTerms)
    cheap: CheapSteps | None = None
    decoder: DecodedBy = "vae"
    keep_graphs: int = 0
    estimates: Estimates | None = None
    agreed: Callable[[bool], bool] = bool


@dataclass(frozen=True)
class Begun:
    """A batch that is rolled out, and whose estimated judges are at work.

    Attributes:
        sampler: The generator with its adapter attached, with the batch's guidance.
        batch: Its draws.
        chain: The rollout.
        asked: What estimated judges were asked about each view; empty without such judges.
        near: Clips near the batch's; None without such judges.
    """

    sampler: ClipSampler
    batch: Batch
    chain: RolledOut
    asked: Sequence[Asked] = ()
    near: NearClips | None = None


def begin_batch(
    sampler: ClipSampler,
    judges: Sequence[Judge],
    batch: Batch,
    sigmas: Tensor,
    *,
    options: StepOptions = StepOptions(),  # frozen
    phase: PhaseFn = lambda name: nullcontext(),
    asking: Asking | None = None,
) -> Begun:
    """Roll out a batch, and ask its estimated judges.

    Args:
        sampler: The generator with its adapter attached.
        judges: At least one.
        batch: Prompts, noise and plans.
        sigmas: `(N + 1,)`, the sampler's table.
        options: Choices of the recipe.
        phase: Entered around each phase.
        asking: Where estimated judges are asked; None asks and waits.
    """
    sampler = sampler.guided_by(batch.guidance_scale)
    how = options.estimates
    with phase("rollout"):
        chain = rolled_out(sampler, batch, sigmas, options.cheap, options.keep_graphs)
        if how is None:
            return Begun(sampler, batch, chain)
        near = near_clips(sampler, batch, sigmas, how, len(chain.views), options.cheap)
    ask_about = partial(
        ask,
        sampler,
        estimated_judges(judges),
        prompts=[prompt.reward_text for prompt in batch.prompts],
        small_decoder=options.decoder == "small",
        asking=asking or AtOnce(),
    )
    with phase("reward"):
        asked = [
            ask_about(view.x, close) for view, close in zip(chain.views, near.latents, strict=True)
        ]
    return Begun(sampler, batch, chain, asked, near)


def reward_step(
    sampler: ClipSampler,
    judges: Sequence[Judge],
    batch: Batch,
    sigmas: Tensor,
    *,
    parameters: Sequence[Tensor],
    options: StepOptions = StepOptions(),  # frozen
    phase: PhaseFn = lambda name: nullcontext(),
) -> BatchReport:
    """Differentiate the judges' loss of one batch; add the gradient to the parameters' `.grad`.

    Args:
        sampler: The generator with its adapter attached.
        judges: At least one.
        batch: Prompts, noise and plans.
        sigmas: `(N + 1,)`, the sampler's table.
        parameters: Parameters of the adapter.
        options: Choices of the recipe.
        phase: Entered around each phase.

    Returns:
        Measurements of the batch. If the loss is not finite, no gradient was added.
    """
    begun = begin_batch(sampler, judges, batch, sigmas, options=options, phase=phase)
    return complete_batch(
        begun, judges, sigmas, parameters=parameters, options=options, phase=phase
    )


def complete_batch(
    begun: Begun,
    judges: Sequence[Judge],
    sigmas: Tensor,
    *,
    parameters: Sequence[Tensor],
    options: StepOptions = StepOptions(),  # frozen
    phase: PhaseFn = lambda name: nullcontext(),
) -> BatchReport:
    """Differentiate the judges' loss of a batch that is rolled out, as `reward_step`."""
    sampler, batch, chain = begun.sampler, begun.batch, begun.chain
    views = chain.views
    motion = latent_motion(views[0].x)
    bad = BatchReport(
        math.nan,
        {},
        motion,
        rollout_steps=chain.steps + (begun.near.steps if begun.near else 0),
        full_steps=chain.full_steps + (begun.near.full_steps if begun.near else 0),
        kept_steps=chain.kept_steps,
    )
    # First exit on NaN: judges refuse such frames, and the trainer skips and counts the step.
    inputs = [view.x for view in views] + [x for asked in begun.asked for x in asked.near]
    if not options.agreed(all(bool(x.isfinite().all()) for x in inputs)):
        return bad

    seen: list[dict[str, float]] = []  # scores of each view
    gradient_of = {"sum": summed_gradient, "pcgrad": conflict_free_gradient}[options.merge]
    texts = [prompt.reward_text for prompt in batch.prompts]

    how = options.estimates
    exact = judges if how is None else exact_judges(judges)
    spreads: list[dict[str, float]] = []  # of each view

    def losses_of(latents: Tensor, view: View, asked: Asked | None) -> list[Tensor]:
        verdicts: Verdicts | None = {}
        if not exact:
            pass  # nothing is decoded with gradient
        elif view.plan.reward_input == "state":
            latent = [judge for judge in exact if isinstance(judge, LatentJudge)]
            verdicts = on_latents(latent, latents, float(sigmas[view.plan.stop]), texts)
        else:
            framed = [judge for judge in exact if isinstance(judge, FramedJudge)]
            verdicts = on_frames(
                sampler,
                framed,
                latents,
                texts,
                seeds=batch.noise_seeds,
                common_seed=batch.common_seed,
                frames=batch.frames,
                terms=options.terms,
                clip_weights=view.clip_weights,
                by=options.decoder,
            )
        if verdicts is not None and asked is not None and how is not None:
            answers = estimated_verdicts(judges, asked, latents, view, how)
            verdicts = None if answers is None else verdicts | answers.verdicts
            spreads.append({} if answers is None else answers.spread)
        if verdicts is None:  # frames that are not finite: a NaN loss makes the exit below
            return [math.nan * latents.sum()]
        seen.append({label: float(scores.mean()) for label, (_, scores) in verdicts.items()})
        return [loss for loss, _ in verdicts.values()]

    of_view: Sequence[Asked | None] = begun.asked or [None] * len(views)
    with phase("reward"):
        found = [
            gradient_of(partial(losses_of, view=view, asked=asked), view.x)
            for view, asked in zip(views, of_view, strict=True)
        ]
    # Second exit, before the sweep adds anything: a NaN in `.grad` would spoil the good batches
    # that are accumulated with this one.
    if not options.agreed(all(bool(loss.isfinite() & g.isfinite().all()) for loss, g in found)):
        return bad
    rewards = {name: sum(of[name] for of in seen) / len(seen) for name in seen[0]}
    gain = guidance_gain(sampler.guidance.scale, sampler.negative)
    judged = Judged(views, [g for _, g in found], gain, batch.common_seed)
    with phase("sweep"):
        reports, drift = sweep(judged, parameters, options)
    return replace(
        bad,
        loss=sum(float(loss) for loss, _ in found) / len(found),
        rewards=rewards,
        drift=drift,
        steps=reports,
        judged=judged if batch.later_plans else None,
        spread={name: sum(of[name] for of in spreads) / len(spreads) for name in spreads[0]}
        if spreads
        else {},
    )


def sweep(
    judged: Judged, parameters: Sequence[Tensor], options: StepOptions, *, update: int = 0
) -> tuple[tuple[StepReport, ...], float | None]:
    """Add the gradient of one update on a batch to the parameters' `.grad`.

    Args:
        judged: The rollout of the batch and its reward gradient.
        parameters: Parameters of the adapter.
        options: Choices of the recipe.
        update: 0 for the first update on this rollout. Later ones sweep plans of their own, at the
            states and with the reward gradient of a slightly older adapter; the re-run's distance
            from the rollout then measures how far it has moved, and is allowed.

    Returns:
        Reports of the active steps, and the drift (`BatchReport.drift`).
    """
    share, anchor, gain = options.share / len(judged.views), options.anchor, judged.gain
    divisor = gain if options.divide_by_guidance else 1.0
    seed = derive_seed(judged.seed, "update", update) if update else judged.seed
    tolerance = math.inf if update else SweepOptions.rerun_tolerance
    reports: list[StepReport] = []
    shares: list[float] = []
    regression = judged.views[0].plan.regression
    # The regression's two terms have one divisor (`methods.adjoint_matching`).
    weight = anchor if regression is None else 0.5 / (regression * divisor)
    for view, g in zip(judged.views, judged.gradients, strict=True):
        for plan, part in (view.later[update - 1] if update else view.plans).items():
            if regression is None:
                anchored = anchored_steps(plan.active, options.anchor_steps, seed)
            else:
                anchored = {i: abs(plan.weights[i]) for i in plan.active}
            pull = pull_to_base(view.velocity, anchored, weight * share * part)
            step_norm = share * part / len(plan.active) if options.normalise_steps else None
            report = adjoint_sweep(
                view.velocity,
                view.states,
                view.sigmas,
                plan.over_guidance(gain),
                g * (view.share * share * part / divisor),
                step_loss=pull if weight else None,
                parameters=parameters,
                options=SweepOptions(
                    options.adjoint_limit,
                    step_norm,
                    options.steps_at_once,
                    view.velocity.at_once,
                    tolerance,
                    local_step_loss=regression is not None,
                ),
                kept=None if update else view.kept,
            )
            seen = [replace(one, step=one.step + view.first) for one in report.steps if one.active]
            reports += seen
            shares += [part if regression is None else part * one.weight for one in seen]
    drift = None
    if weight:
        drift = sum(step.step_loss for step in reports) / (weight * share * sum(shares))
    return tuple(reports), drift


def anchored_steps(active: Sequence[int], most: int | None, seed: int) -> Mapping[int, float]:
    """Draw the active steps that the anchor is computed on, each with the factor of its weight.

    With n of K steps the factor is K / n, so that the mean over the draws is the anchor on all.

    Args:
        active: The plan's active steps.
        most: Steps to draw; None, or K and more, is all of them, without a draw.
        seed: Seed of the batch's first noise.
    """
    if most is None or most >= len(active):
        return dict.fromkeys(active, 1.0)
    draw = derive_generator(seed, "anchor")
    places = torch.randperm(len(active), generator=draw)[:most]
    return {active[place]: len(active) / most for place in places.tolist()}


def pull_to_base(
    velocity: RolloutVelocity, anchored: Mapping[int, float], weight: float
) -> StepLossFn:
    """Return the step loss: the mean square distance of a velocity to the base's, weighted.

    Args:
        velocity: The rollout's velocity.
        anchored: Steps that it is computed on, each with a factor; 0 on others.
        weight: Weight of all.
    """
    sampler = velocity.sampler
    base_velocity = sampler.velocity(velocity.condition, velocity.sigmas)

    def pull(i: int, x: Tensor, v: Tensor) -> Tensor:
        if i not in anchored:
            return v.new_zeros(())
        with torch.no_grad(), scaled(sampler.generator.transformer, 0.0):  # the adapter off
            base = base_velocity(x, i)
        return weight * anchored[i] * (v - base).square().mean()

    return pull


def latent_motion(latents: Tensor) -> float:
    """Return the mean |difference of neighbouring frames| of `(b, 16, t, h, w)`; 0 for t = 1."""
    if latents.shape[2] < 2:
        return 0.0
    return float(latents.diff(dim=2).abs().mean())

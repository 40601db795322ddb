"""Forward-process training: the run's own clips, noised again and matched by their advantage.

AWM (arXiv 2509.25050) and DiffusionNFT (arXiv 2509.16117) need neither the solver nor the reward's
gradient: only samples, scores, and the loss that the base was trained with. As there, the velocity
is that of the positive branch alone, while the clips were sampled with the recipe's guidance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from base_model.generator import Condition
from reward_tuning.gradient.methods.matching_method import MatchingMethod
from reward_tuning.lora.adapter import scaled
from reward_tuning.runs.ranks import largest_of_all, mean_of_all
from reward_tuning.runs.update import PhaseClock
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.further import further_columns
from reward_tuning.tuning.matching_draws import Levels, draw_levels
from reward_tuning.tuning.sampled_clips import SampledClips, centred, normalised
from reward_tuning.tuning.step import BatchReport


@dataclass(frozen=True)
class Matched:
    """Measurements of one batch in one update, means over its clips and levels.

    Attributes:
        loss: The method's loss.
        error: Flow-matching loss of the clips, |v - (e - x)|^2.
        drift: Square distance of the velocity to the base's; None without an anchor.
        moved: Largest relative distance, over the levels, of the velocity from the older adapter's;
            0 on policy.
    """

    loss: float
    error: float
    drift: float | None
    moved: float


@dataclass(frozen=True)
class Noised:
    """Clips at one noise level each.

    Attributes:
        states: x_s = (1 - s) x + s e, `(b, 16, t, h/8, w/8)`.
        target: u = e - x, the same shape.
        sigmas: s, `(b,)`.
    """

    states: Tensor
    target: Tensor
    sigmas: Tensor


def noised(sampler: ClipSampler, latents: Tensor, levels: Levels, draw: int) -> Noised:
    """Return a batch of clips at one of its levels."""
    e, sigmas = sampler.noise(levels.noise_seeds[draw]), levels.sigmas[draw]
    x, s = latents.to(e), sigmas.to(e)[:, None, None, None, None]
    return Noised((1.0 - s) * x + s * e, e - x, sigmas)


@torch.no_grad()
def velocities(sampler: ClipSampler, clips: SampledClips, levels: Levels) -> tuple[Tensor, ...]:
    """Return the velocity at each level of a batch, by the adapter as it is."""
    condition = sampler.condition(clips.batch.prompts).positive
    points = (noised(sampler, clips.latents, levels, draw) for draw in range(len(levels.sigmas)))
    return tuple(sampler.generator.velocity(at.states, at.sigmas, condition) for at in points)


def matching_step(
    sampler: ClipSampler,
    method: MatchingMethod,
    clips: SampledClips,
    advantages: Tensor,
    levels: Levels,
    *,
    old: Sequence[Tensor] | None = None,
    anchor: float = 0.0,
    share: float = 1.0,
) -> Matched:
    """Add the gradient of one batch in one update to the adapter's `.grad`.

    One model call with gradient for each level, whose graph is freed before the next.

    Args:
        sampler: The generator with its adapter attached.
        method: Gives the loss.
        clips: The batch.
        advantages: `(b,)`.
        levels: Where to match.
        old: Velocity of the adapter that sampled the clips at each level; None where that is the
            adapter as it is.
        anchor: Weight of the mean square distance of the velocity to the base's.
        share: Factor of the gradient: 1 / number of accumulated batches.
    """
    condition, draws = sampler.condition(clips.batch.prompts).positive, len(levels.sigmas)
    found = []
    for draw in range(draws):
        at = noised(sampler, clips.latents, levels, draw)
        v = sampler.generator.velocity(at.states, at.sigmas, condition)
        before = None if old is None else old[draw]
        loss = method.objective(v, at.target, before, advantages.to(v)).mean()
        total, drift = loss, None
        if anchor:
            apart = (v - _base_velocity(sampler, at, condition)).square().mean()
            total, drift = loss + anchor * apart, float(apart.detach())
        (share / draws * total).backward()
        now = v.detach()
        moved = 0.0 if before is None else float((now - before).norm() / before.norm())
        error = float((now - at.target).square().mean())
        found.append(Matched(float(loss.detach()), error, drift, moved))
    return Matched(
        _mean([one.loss for one in found]),
        _mean([one.error for one in found]),
        _mean([one.drift for one in found if one.drift is not None]) if anchor else None,
        max(one.moved for one in found),
    )


@torch.no_grad()
def _base_velocity(sampler: ClipSampler, at: Noised, condition: Condition) -> Tensor:
    with scaled(sampler.generator.transformer, 0.0):  # the adapter off
        return sampler.generator.velocity(at.states, at.sigmas, condition)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


class MatchingUpdates:
    """All updates of one step; those after the first are its `runs.update.Further`.

    Levels and noise are drawn anew for each update; the velocities of the adapter that sampled the
    clips are computed for all of them before it changes.

    Args:
        recipe: Its method matches.
        sampler: The generator with its adapter attached.
        clips: Batches of this process in this step.
        step: Counted from 1.
        accelerator: Processes of the run.
        besides: Adds, in further updates, the gradients of other losses of the step.
    """

    def __init__(
        self,
        recipe: Recipe,
        sampler: ClipSampler,
        clips: Sequence[SampledClips],
        step: int,
        accelerator: Accelerator,
        besides: Callable[[PhaseClock], None] = lambda clock: None,
    ) -> None:
        assert isinstance(recipe.method, MatchingMethod)
        self._method, self._train = recipe.method, recipe.train
        self._sampler, self._accelerator, self._besides = sampler, accelerator, besides
        self._clips = clips
        self._levels = [
            [draw_levels(recipe, step, accelerator, number, update) for number in range(len(clips))]
            for update in range(self._train.updates_per_rollout)
        ]
        self._old: list[list[tuple[Tensor, ...]]] = []
        self._advantages: list[Tensor] = []
        self._above: list[Tensor] = []
        self._number, self._moved = 0, 0.0
        self._first: list[Matched] = []

    def first(self, clock: PhaseClock) -> list[BatchReport]:
        """Leave the first update's gradient in `.grad`; return the reports of the batches.

        A batch whose loss is not finite adds none; the step is then skipped.
        """
        each = self._train.clips_per_prompt
        with clock("matching"):
            self._above = [centred(of.totals, each) for of in self._clips]
            squares = [float(above.square().mean()) for above in self._above]
            deviation = mean_of_all(squares, self._accelerator) ** 0.5
            self._advantages = [
                normalised(above, each, self._method.normalise, deviation) for above in self._above
            ]
            if all(of.report.finite for of in self._clips):
                self._old = [
                    [velocities(self._sampler, of, at) for of, at in self._batches(levels)]
                    for levels in self._levels[1:]
                ]
                self._first = self._match(0)
        if not self._first:
            return [of.report for of in self._clips]
        return [
            replace(of.report, drift=matched.drift)
            for of, matched in zip(self._clips, self._first, strict=True)
        ]

    def _batches(self, levels: Sequence[Levels]) -> list[tuple[SampledClips, Levels]]:
        return list(zip(self._clips, levels, strict=True))

    def _match(self, update: int) -> list[Matched]:
        old = self._old[update - 1] if update else [None] * len(self._clips)
        return [
            matching_step(
                self._sampler,
                self._method,
                of,
                advantages,
                levels,
                old=before,
                anchor=self._train.anchor,
                share=1.0 / self._train.gradient_accumulation,
            )
            for (of, levels), advantages, before in zip(
                self._batches(self._levels[update]), self._advantages, old, strict=True
            )
        ]

    def gradient(self, clock: PhaseClock) -> bool:
        """Leave the next update's gradient in `.grad`; return whether there is one to take."""
        if self._number == len(self._levels) - 1:
            return False
        self._number += 1
        with clock("matching"):
            moved = max(matched.moved for matched in self._match(self._number))
            self._moved = largest_of_all(moved, self._accelerator)
        limit = self._train.reuse_limit
        if limit is not None and not self._moved <= limit:
            return False
        self._besides(clock)
        return True

    def columns(self, norms: Sequence[float]) -> dict[str, Any]:
        """Return the columns of further updates, given the gradient's norm in each one made."""
        return further_columns(norms, self._moved)

    def first_columns(self) -> dict[str, Any]:
        """Return the columns of the first update: of this process's batches."""
        each = self._train.clips_per_prompt
        spread = torch.cat(self._above).view(-1, each).std(dim=1, correction=0)
        known = self._first
        return {
            "matching": {
                "advantage": float(torch.cat(self._advantages).abs().mean()),
                "deviation": float(spread.mean()),
                "error": _mean([one.error for one in known]) if known else None,
                "loss": _mean([one.loss for one in known]) if known else None,
            }
        }

"""A rollout that computes only those steps in full that a gradient will need.

The sweep runs some steps again, and must reproduce the function of the rollout. So these steps are
computed exactly as the sweep will, and all others as cheaply as the recipe allows. The gradient
changes only through the visited states, which differ a little.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reward_tuning.gradient.engine import rollout
from reward_tuning.gradient.kept import KeptGraphs
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.sampling.sampler import (
    ClipSampler,
    RolloutVelocity,
    first_state,
    remembers_negative,
)
from reward_tuning.sampling.step_cache import step_cache
from reward_tuning.schema.cache_kinds import CacheSection


@dataclass(frozen=True)
class CheapSteps:
    """How to compute the steps that the sweep does not run again.

    Attributes:
        cache: Cache of steps (`reward_tuning.schema.cache_kinds`); None = each in full.
        dtype: Dtype of the matrix products (autocast); None = that of the weights. The states
            between the steps stay float32.
    """

    cache: CacheSection | None = None
    dtype: torch.dtype | None = None

    @property
    def exact(self) -> bool:
        """True if every step is computed as the sweep computes it."""
        return self == CheapSteps()

    def keeps_graphs(self, sampler: ClipSampler) -> bool:
        """Return whether an exact step may keep its graph for the sweep.

        With a detached negative branch such a step runs one branch after the other, and a cache
        wants both from one call, to reuse their residuals in the steps that follow.
        """
        return self.cache is None or not remembers_negative(sampler)


@dataclass(frozen=True)
class Rollout:
    """Result of a rollout.

    Attributes:
        states: x_0 ... x_stop, as `engine.rollout` returns them.
        full_steps: Number of steps that ran every block of the transformer.
    """

    states: list[Tensor]
    full_steps: int


def cheap_rollout(
    velocity: RolloutVelocity,
    noise: Tensor,
    stop: int,
    *,
    exact: Collection[int],
    cheap: CheapSteps,
    kept: KeptGraphs | None = None,
) -> Rollout:
    """Run the Euler sampler to step `stop`, without gradient.

    Args:
        velocity: The function that the sweep will run again; it computes the steps in `exact`.
        noise: x_0, `(b, 16, t, h, w)`.
        stop: Number of steps.
        exact: Steps that the sweep runs again.
        cheap: How the other steps are computed.
        kept: The same function, which keeps the graphs of some steps in `exact`.

    Raises:
        TuningError: As `engine.rollout`, or the cache cannot work on this model.
    """
    sampler, sigmas, fully = velocity.sampler, velocity.sigmas, kept or velocity
    if cheap.exact:
        return Rollout(rollout(fully, noise, sigmas, stop), stop)
    # "joint" runs both branches in one call; a cheap step has no gradient to detach.
    cheap_velocity = replace(
        sampler,
        negative="none" if sampler.negative == "none" else "joint",
    ).velocity(velocity.condition, sigmas)
    transformer = sampler.generator.transformer
    with ExitStack() as stack:
        cache = None
        if cheap.cache is not None:
            cache = stack.enter_context(step_cache(cheap.cache, transformer, stop))

        def step(x: Tensor, i: int) -> Tensor:
            full = i in exact
            with nullcontext() if cache is None else cache.call(full=full):
                if full:
                    return fully(x, i)
                with cheaply(cheap, x.device):
                    return cheap_velocity(x, i)

        states = rollout(step, noise, sigmas, stop)
    return Rollout(states, stop if cache is None else cache.full_calls)


def whole_rollout(
    sampler: ClipSampler,
    prompts: Sequence[Prompt],
    noise_seeds: Sequence[int],
    sigmas: Tensor,
    cheap: CheapSteps | None,
) -> Rollout:
    """Sample clips to the end of the table, for scores alone: no sweep runs a step again.

    Args:
        sampler: The generator with its adapter attached.
        prompts: b prompts.
        noise_seeds: b seeds.
        sigmas: `(N + 1,)`, the sampler's table.
        cheap: How the steps are computed; None computes them exactly.
    """
    velocity = RolloutVelocity(sampler, sampler.condition(prompts), sigmas)
    start = first_state(sampler.noise(noise_seeds), sampler.video(prompts), sigmas)
    return cheap_rollout(velocity, start, len(sigmas) - 1, exact=(), cheap=cheap or CheapSteps())


def cheaply(cheap: CheapSteps, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a model call that no gradient will need."""
    if cheap.dtype is None:
        return nullcontext()
    return torch.autocast(device.type, dtype=cheap.dtype)

"""A rollout whose steps are computed in full only where a gradient will need them.

The sweep runs some steps again, and must meet the function of the rollout. So those steps are
computed here exactly as the sweep will, and all others as cheaply as the recipe allows. What is
left of it in the gradient is where the chain goes: the visited states differ a little.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass

from torch import Tensor

from base_model.generator import GuidedCondition
from base_model.guidance import NegativeBranch
from reward_tuning.engine import VelocityFn, rollout
from reward_tuning.first_block_cache import FirstBlockCache
from reward_tuning.sampler import ClipSampler


@dataclass(frozen=True)
class CheapSteps:
    """How the steps are computed that the sweep does not run again.

    Attributes:
        cache: Threshold of the first-block cache; None = every block of every step.
    """

    cache: float | None = None

    @property
    def exact(self) -> bool:
        """Whether every step is computed as the sweep would."""
        return self == CheapSteps()


@dataclass(frozen=True)
class Rollout:
    """Where a chain went.

    Attributes:
        states: x_0 ... x_stop, as `engine.rollout` gives them.
        full_steps: How many of the steps ran every block of the transformer.
    """

    states: list[Tensor]
    full_steps: int


def cheap_rollout(
    sampler: ClipSampler,
    condition: GuidedCondition,
    velocity: VelocityFn,
    noise: Tensor,
    sigmas: Tensor,
    stop: int,
    *,
    negative: NegativeBranch,
    exact: Collection[int],
    cheap: CheapSteps,
) -> Rollout:
    """Run the Euler sampler to step `stop`, without gradient.

    Args:
        sampler: Of the velocity.
        condition: Of the velocity.
        velocity: What the sweep will run again; it computes the steps in `exact`.
        noise: x_0, `(b, 16, t, h, w)`.
        sigmas: `(N + 1,)`, falling to 0.
        stop: Number of steps.
        negative: `none` leaves out the negative branch of the other steps, too.
        exact: Steps that the sweep runs again.
        cheap: How the others are computed.

    Raises:
        TuningError: As `engine.rollout`, or the cache cannot work on this model.
    """
    if cheap.exact:
        return Rollout(rollout(velocity, noise, sigmas, stop), stop)
    branches: NegativeBranch = "none" if negative == "none" else "joint"  # one call for both
    near = sampler.velocity(condition, sigmas, branches)
    transformer = sampler.generator.transformer
    with (
        nullcontext() if cheap.cache is None else FirstBlockCache(transformer, cheap.cache) as cache
    ):

        def step(x: Tensor, i: int) -> Tensor:
            full = i in exact
            with nullcontext() if cache is None else cache.call(full=full):
                return velocity(x, i) if full else near(x, i)

        states = rollout(step, noise, sigmas, stop)
    return Rollout(states, stop if cache is None else cache.full_calls)

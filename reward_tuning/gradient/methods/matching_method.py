"""What the methods that match the run's own clips have in common: keys, and a plan without steps.

They train on the forward process: a clip is rolled out without gradient and scored, then noised
again to fresh levels, where the velocity is pulled towards it or pushed away by its advantage
(`reward_tuning.tuning.matching`). No solver and no judge is differentiated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, Strict

from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods.method import Method
from reward_tuning.gradient.plan import Plan, chain_weights
from reward_tuning.section import Positive

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class MatchingMethod(Method):
    """A method of the forward process; a subclass adds `kind`, its keys and its objective."""

    matches: ClassVar[bool] = True

    draws: Positive = Field(
        default=2,
        description="Noise levels at which each clip is matched in an update; one model call with "
        "gradient each",
    )
    normalise: Literal["group", "batch", "none"] = Field(
        default="batch",
        description="Divide advantages by a standard deviation: batch = that about the prompts' "
        "means over all clips of the step, group = that of the prompt's clips, which gives prompts "
        "of nearly equal clips as much weight as others; none = the scores' own unit",
    )
    shared_noise: bool = Field(
        default=True,
        description="Clips of one prompt share noise and levels, so that what they have in common "
        "cancels: the same expected gradient with less variance. false = each has its own",
    )

    sigma_range: Annotated[tuple[float, float], Strict(False)] = Field(
        default=(0.0, 1.0),
        description="Lowest and highest noise level that is drawn, with the density of the base's "
        "training between them. Layout and colour are decided above about 0.85; at low levels most "
        "of the gradient is noise",
    )

    @property
    def not_at_end(self) -> str:
        """The end is scored, but nothing flows back from there."""
        return f"method {getattr(self, 'kind', '')} matches whole rollouts, each from its own noise"

    @property
    def one_plan_only(self) -> str:
        """No step of the chain is active."""
        return f"method {getattr(self, 'kind', '')} has no active steps; raise method.draws instead"

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Return the plan, a rollout to the end without active steps; nothing is drawn.

        Raises:
            TuningError: A range out of bounds.
        """
        del draw
        low, high = self.sigma_range
        if not 0.0 <= low < high <= 1.0:
            raise TuningError(
                f"method.sigma_range is {list(self.sigma_range)}; needed is 0 <= low < high <= 1"
            )
        weights = chain_weights(sigmas)
        return Plan(len(weights), len(weights), "end", (), weights, matched=self.draws)

    def objective(
        self, velocity: Tensor, target: Tensor, old: Tensor | None, advantages: Tensor
    ) -> Tensor:
        """Return the loss of each clip at one noise level.

        Args:
            velocity: v, `(b, ...)`, with gradient.
            target: u = e - x, the same shape.
            old: Velocity of the adapter that sampled the clips, without gradient; None where that
                is the adapter of `velocity` itself, at a step's first update.
            advantages: A, `(b,)`.

        Returns:
            `(b,)`.
        """
        raise NotImplementedError

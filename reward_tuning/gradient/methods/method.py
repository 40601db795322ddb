"""The base class of a method: its recipe keys as fields, and its plan as a function of a draw.

A method is one file here and its entry in `METHODS`. Its keys, defaults and ranges are declared
once, as the fields of its class. Nothing here imports torch before a plan is drawn, because the
command line reads recipes without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from reward_tuning.section import Section

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from reward_tuning.gradient.plan import Plan

Rescale = Annotated[
    float,
    Field(
        ge=0.0,
        le=1.0,
        description="0 = each active step keeps its own Euler weight; 1 = the active steps "
        "together carry the weight of the whole chain",
    ),
]
SmallestStep = Annotated[
    float,
    Field(
        ge=0.0,
        le=1.0,
        description="Steps shorter than this share of the median are not counted as active: the "
        "last step of the published table alone gives no usable gradient; 0 = count every step",
    ),
]
Nested = Annotated[
    float,
    Field(
        ge=0.0,
        le=1.0,
        description="Share of the gradient that flows on through the states; 1 = the chain rule. "
        "With sampling.negative: detached the sweep uses nested / guidance_scale",
    ),
]
NestedOfOne = Annotated[
    float,
    Field(
        ge=0.0,
        description="Share of the gradient that flows on through one step's input. With "
        "sampling.negative: detached the sweep uses nested / guidance_scale",
    ),
]


class Method(Section):
    """A published method; a subclass adds `kind`, its keys and its plan."""

    judges_latents: ClassVar[bool] = False
    """True if its rewards judge noisy latents instead of decoded frames."""
    matches: ClassVar[bool] = False
    """True if it matches the run's own clips by their scores, without a gradient of the reward."""

    @property
    def not_at_end(self) -> str:
        """Reason why the reward is not read at the rollout's end as it is; empty where it is.

        Restarts need that end.
        """
        return ""

    @property
    def one_plan_only(self) -> str:
        """Reason why a rollout has no further sets of active steps; empty where more can be drawn.

        Sets of one rollout share its reward gradient.
        """
        if self.weights_clips:
            return "each pair of leaps weights the clips anew; set method.leap_floor=null"
        return ""

    @property
    def steps_wanted(self) -> int:
        """Number of active steps that the recipe asks for; 0 where the method has no such key."""
        return getattr(self, "active_steps", 0)

    @property
    def weights_clips(self) -> bool:
        """True if each draw weights the clips of the batch anew."""
        return False

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Draw the plan of one update.

        Args:
            draw: CPU generator, in the same state on every rank.
            sigmas: `(N + 1,)`, the sampler's table, falling from 1 to 0.

        Raises:
            TuningError: The keys do not fit the table, whatever the draw is.
        """
        raise NotImplementedError

"""The keys of the guards: what is measured during training, and the rules that act on it.

A rule without other changes may be written as its action alone: `guards.motion=off`.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from reward_tuning.section import NotNegative, Positive, Section

Action = Literal["off", "warn", "stop", "rollback"]
_ACTION = (
    "off; warn = say so; stop = end the training and export the best checkpoint; rollback = go "
    "back to the best checkpoint with fresh optimiser moments and half the learning rate"
)


def _from_action(value: Any) -> Any:
    return {"action": value} if isinstance(value, str) else value


class HeldOutRule(Section):
    """Fires if a held-out judge falls on two evaluations in a row while the training reward rises.

    At the first it must not have risen by more than one standard error, at the second it must have
    fallen, to below the base by more than the noise of the prompts. Without
    evaluation.held_out_rewards the rule is off.
    """

    action: Action = Field(default="stop", description=_ACTION)
    errors: float = Field(
        default=2.5,
        ge=0.0,
        description="Standard errors of the paired difference by which the judge must be below the "
        "base",
    )


class MotionRule(Section):
    """Fires if the motion leaves these bounds by more than one standard error."""

    action: Action = Field(default="warn", description=_ACTION)
    low: float = Field(default=0.8, ge=0.0, le=1.0, description="Lowest ratio to the base's motion")
    high: float = Field(default=1.25, ge=1.0, description="Highest ratio to the base's motion")


class DiversityRule(Section):
    """Fires if two clips of a prompt become alike, by more than two standard errors.

    The distance is 1 - cosine of the image features of a judge, a held-out one where there is one;
    without a judge that has image features, the mean difference of pixels.
    """

    action: Action = Field(default="warn", description=_ACTION)
    low: float = Field(
        default=0.8, ge=0.0, le=1.0, description="Lowest ratio to the base's diversity"
    )
    prompts: Positive = Field(
        default=6, description="Prompts of which a second clip is sampled, at most guards.prompts"
    )


class DriftRule(Section):
    """Fires if the velocity is too far from the base's, on noised clips of the base."""

    action: Action = Field(default="warn", description=_ACTION)
    high: float = Field(
        default=0.3,
        gt=0.0,
        description="Highest distance, as a share of the length of the base's velocity",
    )
    prompts: Positive = Field(
        default=4, description="Prompts whose base clips are noised, at most guards.prompts"
    )


class GuardsSection(Section):
    """Small evaluations during training, rules that act on them, and the best checkpoint.

    A training shorter than `every` has none. No number of a step changes, unless a rule rolls the
    training back.
    """

    every: NotNegative = Field(
        default=20,
        description="Steps between two evaluations; one more follows the last step; 0 = no guards, "
        "and the last checkpoint is exported",
    )
    prompts: Annotated[int, Field(ge=2)] = Field(
        default=12,
        description="Prompts to evaluate on, spread over those of the evaluation, with noise of "
        "their own; at most evaluation.prompts",
    )
    steps: Positive | None = Field(default=None, description="Euler steps; null = sampling.steps")
    best: bool = Field(
        default=True,
        description="Export the checkpoint that the first held-out judge rates best, the latest of "
        "those within one standard error, and never one at which a rule stopped or rolled back; "
        "false = the last one",
    )
    rollbacks: NotNegative = Field(
        default=2, description="Rollbacks of a run, after which `rollback` means `stop`"
    )
    held_out: Annotated[HeldOutRule, BeforeValidator(_from_action)] = Field(
        default_factory=HeldOutRule
    )
    motion: Annotated[MotionRule, BeforeValidator(_from_action)] = Field(default_factory=MotionRule)
    diversity: Annotated[DiversityRule, BeforeValidator(_from_action)] = Field(
        default_factory=DiversityRule
    )
    drift: Annotated[DriftRule, BeforeValidator(_from_action)] = Field(default_factory=DriftRule)

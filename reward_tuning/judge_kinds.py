"""The kinds of judges: one model each, with the keys of this kind and no others.

A kind is written once. Its model says which judge is meant and how it is loaded: its own keys are
the keywords of its loader (see `rewards.loading`). What training and the evaluation want beside,
`RewardSection` and `HeldOutSection`, is put on top of every kind by `_each_kind`. To add a kind:
its class and loader in `rewards`, a model here made of the parts in `judge_sections`, and the
model's place in `KINDS`.
"""

import functools
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model

from reward_tuning.judge_sections import (
    ClipTowerSection,
    EachFrameSection,
    FileSection,
    FrameRewardSection,
    FramesSection,
    HeldOutSection,
    JudgeSection,
    RewardSection,
    TwoTowerSection,
)
from reward_tuning.section_types import Dtype, FileName


class HpsSection(TwoTowerSection):
    """HPSv2 and HPSv2.1: human preference."""

    kind: Literal["hps"]


class ClipSection(TwoTowerSection):
    """CLIP text alignment."""

    kind: Literal["clip"]


class AestheticSection(ClipTowerSection):
    """The LAION aesthetic predictor v2."""

    kind: Literal["aesthetic"]
    tower: FileName | None = Field(
        default=None, description="The CLIP under the head; null = as the head's file says"
    )


class LatentSection(FileSection):
    """A judge of noisy latents, for method prfl only."""

    kind: Literal["latent"]
    dtype: Dtype = Field(default="float32", description="Of its weights; scores stay float32")


class PythonSection(EachFrameSection, FileSection):
    """A judge of your own: one class in a Python file, whose code runs as it is loaded."""

    kind: Literal["python"]
    options: dict[str, Any] = Field(default_factory=dict, description="Passed to the class by name")


KINDS: dict[str, type[JudgeSection]] = {
    "hps": HpsSection,
    "clip": ClipSection,
    "aesthetic": AestheticSection,
    "python": PythonSection,
    "latent": LatentSection,
}


def _trained(kind: type[JudgeSection]) -> type[JudgeSection]:
    return FrameRewardSection if issubclass(kind, FramesSection) else RewardSection


def _held_out(kind: type[JudgeSection]) -> type[JudgeSection]:
    del kind
    return HeldOutSection


def _each_kind(on_top: Callable[[type[JudgeSection]], type[JudgeSection]]) -> Any:
    """A union of all kinds, told apart by `kind`, each with the keys that go on top of it."""
    models = [
        create_model(
            kind.__name__.removesuffix("Section") + on_top(kind).__name__,
            __base__=(kind, on_top(kind)),  # in this order the kind's own `kind` wins
            __doc__=kind.__doc__,
        )
        for kind in KINDS.values()
    ]
    return Annotated[functools.reduce(operator.or_, models), Field(discriminator="kind")]


if TYPE_CHECKING:  # made below from KINDS; every member is one of these
    TrainingReward = RewardSection
    HeldOutReward = HeldOutSection
else:
    TrainingReward = _each_kind(_trained)
    HeldOutReward = _each_kind(_held_out)

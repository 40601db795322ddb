"""The two roles of a judge in a recipe: trained on under `rewards`, or only evaluated.

Each role adds its keys to the section of every kind (`reward_tuning.schema.judge_kinds`).
"""

import contextlib
import functools
import operator
import warnings
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from reward_tuning.schema.judge_kinds import KINDS
from reward_tuning.schema.judge_parts import FramesSection, JudgeSection
from reward_tuning.section import Section


class AugmentationSection(Section):
    """Random changes of the frames that a judge sees in training, drawn once per clip."""

    crop: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="Largest share of each side that is cut off"
    )
    flip: bool = Field(
        default=False,
        description="Mirror half of the clips; not for prompts that say left or right",
    )
    noise: float = Field(
        default=0.0, ge=0.0, le=1.0, description="Largest standard deviation of white noise"
    )


RENAMED_KEYS = {"unit": "std", "flatten": "robust_radius"}
"""Old names of keys of a judge under `rewards`, to their new ones; the old ones are still read."""


class RenamedKeyWarning(UserWarning):
    """A recipe uses the old name of a key."""


def rename_keys(judge: Mapping[str, Any], allowed: Collection[str]) -> dict[str, Any]:
    """Return a raw judge with the new names of its keys, and warn of each old one.

    Args:
        judge: Keys and values, as in a recipe.
        allowed: Keys of its section; a section without the new name does not take the old one.

    Raises:
        ValueError: A key is given under its old and its new name.
    """
    renamed = dict(judge)
    for old, new in RENAMED_KEYS.items():
        if old not in judge or new not in allowed:
            continue
        if new in judge:
            raise ValueError(f"`{old}` is the old name of `{new}`, and both are given; remove one")
        renamed[new] = renamed.pop(old)
        _warn_of_old_name(old)
    return renamed


def _warn_of_old_name(old: str) -> None:
    warnings.warn(
        f"the key `{old}` of a judge is now called `{RENAMED_KEYS[old]}`; rename it in the recipe",
        RenamedKeyWarning,
        stacklevel=3,
    )


class RewardSection(JudgeSection):
    """One judge whose score is raised."""

    weight: float = Field(default=1.0, description="Factor of this judge's loss; not 0")
    target: float | None = Field(
        default=None,
        description="Hinge, or cap: at a score of target or above this judge gives no gradient; "
        "null = no cap",
    )
    mean: float = Field(
        default=0.0,
        description="Score that the loss counts as 0, such as the mean over the base's clips "
        "(`reward-tuning calibrate` measures it); changes no gradient. Does not shift `target`",
    )
    std: float = Field(
        default=1.0,
        gt=0.0,
        description="The loss divides scores by this number, such as the standard deviation over "
        "the base's clips (`reward-tuning calibrate`), so that the weights of several judges can "
        "be compared",
    )

    @model_validator(mode="before")
    @classmethod
    def _rename_keys(cls, data: Any) -> Any:
        return rename_keys(data, cls.model_fields) if isinstance(data, dict) else data

    def loader_options(self) -> dict[str, Any]:
        """Return the keywords of the loader: those of the kind, without those of this role."""
        role = {*FrameRewardSection.model_fields} - {*JudgeSection.model_fields}
        return {key: value for key, value in super().loader_options().items() if key not in role}


class FrameRewardSection(RewardSection):
    """One judge of decoded frames whose score is raised."""

    gradient: Literal["exact", "group", "paired"] | None = Field(
        default=None,
        description="Where the gradient of its score comes from: exact = the judge itself; group = "
        "an estimate from the scores of a prompt's clips (train.clips_per_prompt), paired = one "
        "from clips near each clip (train.pairs), for judges without a gradient, or to save its "
        "backward pass; null = exact, where the judge has one",
    )
    augmentation: AugmentationSection | None = Field(
        default=None,
        description="Crop, mirror or add noise to what the judge sees in training; null = none",
    )
    robust_radius: float = Field(
        default=0.0,
        ge=0.0,
        le=0.5,
        description="Train on the lowest score within this distance (root mean square of a pixel "
        "in [0, 1]), so that sharp peaks of the judge do not pay; costs one more pass; 0 = off",
    )

    @property
    def estimated(self) -> bool:
        """Whether its gradient is estimated from scores."""
        return self.gradient in ("group", "paired")


class HeldOutSection(JudgeSection):
    """One judge for the evaluation only; nothing is trained on it."""

    @model_validator(mode="after")
    def _scores_alone(self) -> "HeldOutSection":
        if not self.scores_alone:
            raise ValueError(
                "pairwise compares clips of one prompt, so it has no score of a clip by itself, "
                "as evaluations and files need; set pairwise to false, or train on this judge"
            )
        return self

    @property
    def label(self) -> str:
        """Name in metrics and tables."""
        return self.name or f"{self.kind}_held_out"


TRAINED: dict[str, type[JudgeSection]] = {
    kind: create_model(
        f"{section.__name__.removesuffix('Section')}{role.__name__}",
        __base__=(section, role),  # in this order the kind's own `kind` wins
        __doc__=section.__doc__,
    )
    for kind, section in KINDS.items()
    for role in [FrameRewardSection if issubclass(section, FramesSection) else RewardSection]
}
"""Sections of an entry of `rewards`, by kind."""

HELD_OUT: dict[str, type[JudgeSection]] = {
    kind: create_model(
        f"{section.__name__.removesuffix('Section')}HeldOutSection",
        __base__=(section, HeldOutSection),
        __doc__=section.__doc__,
    )
    for kind, section in KINDS.items()
}
"""Sections of an entry of `evaluation.held_out_rewards`, by kind."""


def _union(sections: Mapping[str, type[JudgeSection]]) -> Any:
    """Return the union of sections that `kind` selects from."""
    return Annotated[functools.reduce(operator.or_, sections.values()), Field(discriminator="kind")]


def rename_reward_keys(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a raw recipe whose judges under `rewards` have the new names of their keys.

    A judge that gives a key under both names stays as it is: its section refuses it.
    """
    rewards = recipe.get("rewards")
    if not isinstance(rewards, list):
        return dict(recipe)
    renamed = list(rewards)
    for i, judge in enumerate(rewards):
        section = TRAINED.get(str(judge.get("kind"))) if isinstance(judge, dict) else None
        if section is not None:
            with contextlib.suppress(ValueError):
                renamed[i] = rename_keys(judge, section.model_fields)
    return {**recipe, "rewards": renamed}


def renamed_path(path: tuple[str | int, ...], recipe: Mapping[str, Any]) -> tuple[str | int, ...]:
    """Return the path of a key with its new name, and warn of an old one.

    `rewards.0.unit` becomes `rewards.0.std`, unless the kind of that judge has no such key: its
    section then judges the old name (see `FORMER_KEYS`).

    Args:
        path: Path of the key.
        recipe: The raw recipe that the path leads into.
    """
    if len(path) != 3 or path[0] != "rewards" or path[2] not in RENAMED_KEYS:
        return path
    old = str(path[2])
    rewards = recipe.get("rewards")
    numbered: dict[Any, Any] = dict(enumerate(rewards if isinstance(rewards, list) else []))
    judge = numbered.get(path[1])
    section = TRAINED.get(str(judge.get("kind"))) if isinstance(judge, dict) else None
    if section is not None and RENAMED_KEYS[old] not in section.model_fields:
        return path
    _warn_of_old_name(old)
    return (*path[:2], RENAMED_KEYS[old])


if TYPE_CHECKING:  # pydantic needs the union; every member is one of these
    TrainingReward = RewardSection
    HeldOutReward = HeldOutSection
else:
    TrainingReward = _union(TRAINED)
    HeldOutReward = _union(HELD_OUT)

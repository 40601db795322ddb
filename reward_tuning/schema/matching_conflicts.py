"""Conflicts of the methods that match clips or velocities: what they need, what they ignore."""

from collections.abc import Iterator, Sequence

from reward_tuning.gradient.methods.adjoint_matching import AdjointMatching
from reward_tuning.schema.judge_roles import RewardSection
from reward_tuning.schema.methods import Method
from reward_tuning.schema.mistakes import Conflict
from reward_tuning.schema.sections import SamplingSection, TrainSection

OF_THE_SWEEP = {
    "keep_graphs": 0,
    "steps_at_once": 1,
    "normalise_steps": False,
    "adjoint_limit": None,
    "anchor_steps": None,
}
"""Keys of `train` about active steps, with the values that leave them off."""
WHOLE_CLIPS = {"decoded": "all", "decoder": "vae"}
"""Keys of `train` that make the decoder's gradient cheaper, with the values that leave them off."""


def matching_conflicts(
    method: Method,
    sampling: SamplingSection | None,
    train: TrainSection | None,
    rewards: Sequence[RewardSection],
) -> Iterator[Conflict]:
    """Check that clips can be compared, and that no key is given that has no effect.

    `train.active_sets` and `train.restarts` are refused as for other methods (`reuse_conflicts`).
    """
    if not method.matches:
        return
    name = f"method {method.kind}"  # type: ignore[attr-defined]
    if train is not None:
        if train.clips_per_prompt < 2:
            yield Conflict(
                ("train", "clips_per_prompt"),
                train.clips_per_prompt,
                f"{name} compares clips of one prompt; set it to 2 or more, and train.batch_size "
                "to a multiple of it",
            )
        reasons = {
            **dict.fromkeys(OF_THE_SWEEP, f"has no effect: {name} has no active steps"),
            **dict.fromkeys(WHOLE_CLIPS, f"{name} scores whole clips, and decodes no gradient"),
            "merge": f"has no effect: {name} has no reward gradient",
        }
        for key, off in {**OF_THE_SWEEP, **WHOLE_CLIPS, "merge": "sum"}.items():
            if (value := getattr(train, key)) != off:
                yield Conflict(("train", key), value, f"{reasons[key]}; leave it out")
        if train.repulsion:
            yield Conflict(
                ("train", "repulsion"),
                train.repulsion,
                f"has no effect: all clips of a prompt have the same penalty, and {name} compares "
                "them with each other; leave it out",
            )
    if sampling is not None and sampling.negative == "joint":
        yield Conflict(
            ("sampling", "negative"),
            "joint",
            f"has no effect: {name} trains the positive branch alone; leave it out",
        )
    if sampling is not None and not sampling.divide_by_guidance:
        yield Conflict(
            ("sampling", "divide_by_guidance"),
            False,
            f"has no effect: {name} has no reward gradient; leave it out",
        )
    for i, judge in enumerate(rewards):
        if getattr(judge, "robust_radius", 0.0):
            yield Conflict(
                ("rewards", i, "robust_radius"),
                getattr(judge, "robust_radius", 0.0),
                f"needs the judge's gradient, and {name} takes only scores; leave it out",
            )


def regression_conflicts(method: Method, train: TrainSection | None) -> Iterator[Conflict]:
    """Check that nothing else decides where the regression of adjoint matching ends."""
    if train is None or not isinstance(method, AdjointMatching):
        return
    if train.anchor:
        yield Conflict(
            ("train", "anchor"),
            train.anchor,
            "method adjoint_matching has a pull to the base of its own; set method.strength, and "
            "leave this out",
        )
    if train.normalise_steps:
        yield Conflict(
            ("train", "normalise_steps"),
            True,
            "method adjoint_matching weights its steps so that their regression has an end; leave "
            "it out",
        )

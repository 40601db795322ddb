"""Conflicts of the keys about where a judge's gradient comes from: its own, or an estimate."""

from collections.abc import Iterator, Sequence

from reward_tuning.schema.judge_parts import EachFrameSection, JudgeSection
from reward_tuning.schema.judge_roles import FrameRewardSection, RewardSection
from reward_tuning.schema.methods import Method
from reward_tuning.schema.mistakes import Conflict
from reward_tuning.schema.sections import TrainSection

ESTIMATES = (
    "gradient: group, an estimate from several clips of a prompt (train.clips_per_prompt), or "
    "gradient: paired, one from clips near each clip (train.pairs)"
)


def gradient_conflicts(
    path: tuple[str | int, ...],
    judge: JudgeSection,
    train: TrainSection | None,
    method: Method | None,
) -> Iterator[Conflict]:
    """Check that a judge's gradient exists or can be estimated.

    Args:
        path: Path of the judge.
        judge: Its section; only one that is trained on can conflict.
        train: None if its own values are wrong.
        method: None if its own values are wrong.
    """
    if not isinstance(judge, FrameRewardSection):
        return
    yield from _pair_conflicts(path, judge, train)
    where = (*path, "gradient")
    if method is not None and method.matches:
        if judge.gradient is not None:
            name = f"method {method.kind}"  # type: ignore[attr-defined]
            text = f"has no effect: {name} takes only scores; leave it out"
            yield Conflict(where, judge.gradient, text)
        return
    if not judge.differentiable and not judge.estimated:
        yield Conflict(
            where,
            judge.gradient,
            f"the score of kind {judge.kind} has no gradient; set {ESTIMATES}; or choose method "
            "awm or nft; or move the judge to evaluation.held_out_rewards",
        )
    if judge.gradient == "group" and train is not None and train.clips_per_prompt == 1:
        yield Conflict(
            where,
            judge.gradient,
            "compares clips of one prompt: set train.clips_per_prompt to 2 or more (8 and more "
            "estimate better), or gradient: paired",
        )
    if judge.estimated:
        yield from _without_effect(path, judge)


def _pair_conflicts(
    path: tuple[str | int, ...], judge: FrameRewardSection, train: TrainSection | None
) -> Iterator[Conflict]:
    """Check that a judge that compares clips of one prompt is shown them together."""
    if judge.scores_alone or train is None:
        return
    where = (*path, "pairwise")
    if train.clips_per_prompt == 1 and judge.gradient != "paired":
        text = "compares clips of one prompt: set train.clips_per_prompt to 2 or more"
        yield Conflict(where, True, text)
    if train.group is not None:
        text = "compares the clips of a batch, and train.group scores more than those; leave it out"
        yield Conflict(where, True, text)


def _without_effect(path: tuple[str | int, ...], judge: FrameRewardSection) -> Iterator[Conflict]:
    """Check that nothing is asked for that needs the gradient of the judge's own score."""
    text = f"has no effect with gradient: {judge.gradient}, which sees whole clips as they are"
    if judge.augmentation is not None:
        yield Conflict((*path, "augmentation"), judge.augmentation.model_dump(), text)
    if judge.robust_radius:
        yield Conflict((*path, "robust_radius"), judge.robust_radius, text)
    if isinstance(judge, EachFrameSection) and judge.over_frames.kind == "random":
        yield Conflict((*path, "over_frames", "kind"), "random", text)


def estimate_conflicts(
    rewards: Sequence[RewardSection], train: TrainSection | None
) -> Iterator[Conflict]:
    """Check that keys of an estimate have a judge that is estimated so."""
    if train is None:
        return
    if not any(not (isinstance(one, FrameRewardSection) and one.estimated) for one in rewards):
        for name in ("motion", "repulsion"):
            if getattr(train, name):
                yield Conflict(
                    ("train", name),
                    getattr(train, name),
                    "is differentiated with the frames that a judge with an exact gradient sees, "
                    "and every judge is estimated; leave it out",
                )
    paired = any(
        isinstance(one, FrameRewardSection) and one.gradient == "paired" for one in rewards
    )
    for name, unused in (("pairs", 1), ("pair_distance", 0.5)):
        value = getattr(train, name)
        if value != unused and not paired:
            yield Conflict(
                ("train", name),
                value,
                "has no effect: no judge under rewards has gradient: paired; leave it out",
            )

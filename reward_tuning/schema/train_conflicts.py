"""Conflicts of the keys about more from a rollout: sets, restarts, groups, kept graphs."""

from collections.abc import Iterator

from reward_tuning.schema.methods import Method
from reward_tuning.schema.mistakes import Conflict
from reward_tuning.schema.sections import RolloutSection, SamplingSection, TrainSection


def reuse_conflicts(method: Method, train: TrainSection | None) -> Iterator[Conflict]:
    """Check that the method allows a rollout to be used more than once."""
    if train is None:
        return
    reasons = (("active_sets", 1, method.one_plan_only), ("restarts", 0, method.not_at_end))
    for name, unused, reason in reasons:
        if reason and getattr(train, name) != unused:
            text = f"only {unused}: {reason}"
            yield Conflict(("train", name), getattr(train, name), text)


def group_conflicts(
    method: Method, sampling: SamplingSection | None, train: TrainSection | None
) -> Iterator[Conflict]:
    """Check that a group of clips can be scored, and is larger than what is kept of it."""
    group = None if train is None else train.group
    if group is None or train is None:
        return
    if method.judges_latents:
        text = "the method judges noisy latents, and a group is scored by its frames; leave it out"
        yield Conflict(("train", "group"), group.model_dump(), text)
    if group.clips <= train.clips_per_prompt:
        yield Conflict(
            ("train", "group", "clips"),
            group.clips,
            f"allowed: more than train.clips_per_prompt = {train.clips_per_prompt}, the number of "
            "clips that are kept",
        )
    if group.keep == "extremes" and train.clips_per_prompt == 1:
        yield Conflict(
            ("train", "group", "keep"),
            "extremes",
            "needs train.clips_per_prompt of 2 or more; to keep one clip, set best or worst",
        )
    if sampling is not None and group.steps is not None and sampling.strength < 1.0:
        yield Conflict(
            ("train", "group", "steps"),
            group.steps,
            "only null with sampling.strength below 1, which counts its steps from sampling.steps",
        )


def kept_conflicts(
    train: TrainSection | None, sampling: SamplingSection | None, rollout: RolloutSection | None
) -> Iterator[Conflict]:
    """Check that a step of the rollout can keep its graph, and that keys beside have an effect."""
    if train is not None and train.keep_graphs != "auto" and train.keep_graphs_memory != 1.0:
        yield Conflict(
            ("train", "keep_graphs_memory"),
            train.keep_graphs_memory,
            "has no effect without train.keep_graphs=auto; set that, or leave it out",
        )
    if train is not None and train.anchor_steps is not None and train.anchor == 0:
        yield Conflict(
            ("train", "anchor_steps"),
            train.anchor_steps,
            "has no effect without train.anchor; set that above 0, or anchor_steps to null",
        )
    if train is None or sampling is None or rollout is None or train.keep_graphs == 0:
        return
    if rollout.cache is not None and sampling.negative == "detached":
        yield Conflict(
            ("train", "keep_graphs"),
            train.keep_graphs,
            "cannot be combined with rollout.cache and sampling.negative: detached, because the "
            "cache needs both branches in one call, and a kept graph has the positive one alone; "
            "set train.keep_graphs=0 or rollout.cache=null",
        )

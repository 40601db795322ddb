"""Conflicts of weights that processes share (`generator.memory: sharded`)."""

from collections.abc import Iterator, Sequence

from base_model.memory.modes import MODES
from reward_tuning.schema.black_box_kinds import BlackBoxSection
from reward_tuning.schema.judge_roles import RewardSection
from reward_tuning.schema.methods import Method
from reward_tuning.schema.mistakes import Conflict
from reward_tuning.schema.sections import GeneratorSection, RolloutSection, TrainSection

Where = tuple[str | int, ...]
MEMORY: Where = ("generator", "memory")


def shared_conflicts(generator: GeneratorSection | None) -> Iterator[Conflict]:
    """Check that the weights can be spread over processes."""
    if generator is None or not MODES[generator.memory].blocks_shared:
        return
    if generator.quantise is not None:
        text = f"packed weights cannot be spread (generator.quantise={generator.quantise}); "
        yield Conflict(MEMORY, generator.memory, text + "choose one of the two")


def alike_conflicts(
    generator: GeneratorSection | None,
    method: Method | None,
    rewards: Sequence[RewardSection],
    train: TrainSection | None,
    rollout: RolloutSection | None,
) -> Iterator[Conflict]:
    """Check that all processes make the same model calls, as shared weights need it."""
    if generator is None or not MODES[generator.memory].blocks_shared:
        return
    reasons: list[str] = []
    if method is not None and method.matches:
        name = method.kind  # type: ignore[attr-defined]
        reasons.append(f"the method {name}, whose updates stop where a process has no more")
    if train is not None and train.updates_per_rollout > 1:
        reasons.append("train.updates_per_rollout above 1")
    if rollout is not None and rollout.cache is not None:
        reasons.append("rollout.cache, by which each process skips calls of its own")
    if any(isinstance(judge, BlackBoxSection) for judge in rewards):
        reasons.append("judges outside the process, which may leave one process without an answer")
    for reason in reasons:
        text = f"needs the same model calls on all processes; it is not built for {reason}"
        yield Conflict(MEMORY, generator.memory, text)

"""Which judges of a recipe are not on this machine yet: looked up by name, nothing is read."""

from collections.abc import Iterable

from reward_tuning.schema.judge_parts import JudgeSection
from rewards.core.locate import resolve
from rewards.errors import RewardError
from rewards.qwen.files import resolve_folder


def missing_judges(judges: Iterable[JudgeSection]) -> list[str]:
    """Tell which files and folders are not there, each with the way to fetch it.

    Args:
        judges: Of a resolved recipe, training rewards and held-out ones alike.

    Returns:
        `label: what is missing` for each, in their order; what two judges share, once.
    """
    missing: dict[str, str] = {}
    for judge in judges:
        for find, names in ((resolve, judge.files), (resolve_folder, judge.folders)):
            for name in names.values():
                try:
                    find(name)
                except RewardError as error:
                    missing.setdefault(name, f"{judge.label}: {error}")
    return list(missing.values())


def require_judges(judges: Iterable[JudgeSection]) -> None:
    """Refuse to begin without one of these judges.

    Raises:
        RewardError: With every one that is missing.
    """
    if missing := missing_judges(judges):
        raise RewardError("\n".join(missing))

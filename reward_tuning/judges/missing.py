"""Find the judges of a recipe that are not on this machine: looked up by name, nothing is read."""

from collections.abc import Iterable

from reward_tuning.schema.judge_parts import JudgeSection
from rewards.core.locate import resolve_file
from rewards.errors import RewardError
from rewards.qwen.files import resolve_folder


def missing_judges(judges: Iterable[JudgeSection]) -> list[str]:
    """List the files and folders that are missing, each with the command that fetches it.

    Args:
        judges: Judges of a resolved recipe, training rewards and held-out ones.

    Returns:
        A line `label: what is missing` for each, in their order; what two judges share, once.
    """
    missing: dict[str, str] = {}
    for judge in judges:
        for find, names in ((resolve_file, judge.files), (resolve_folder, judge.folders)):
            for name in names.values():
                try:
                    find(name)
                except RewardError as error:
                    missing.setdefault(name, f"{judge.label}: {error}")
    return list(missing.values())


def require_judges(judges: Iterable[JudgeSection]) -> None:
    """Check that every file and folder of these judges is on this machine.

    Raises:
        RewardError: Some are missing; the message lists all of them.
    """
    if missing := missing_judges(judges):
        raise RewardError("\n".join(missing))

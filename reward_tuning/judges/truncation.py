"""Warn of prompts that are longer than a judge reads, once for each set of prompts."""

from collections.abc import Mapping, Sequence

from reward_tuning.inputs.prompts import Prompt
from reward_tuning.judges.judge import FramedJudge, Judge
from reward_tuning.progress import ProgressEvent, ProgressFn
from rewards import LatentClip
from rewards.core.base import FrozenReward

Texts = Mapping[str, Sequence[Prompt]]
"""Sets of prompts by name, such as `prompts.train`."""

MOST_SHOWN = 60  # characters of the longest prompt that the warning quotes


def report_truncation(judges: Sequence[Judge], sets: Texts, progress: ProgressFn) -> None:
    """Warn of prompts that a judge cuts off, once for each set and judge."""
    for where, prompts in sets.items():
        for note in truncation_notes(judges, [one.reward_text for one in prompts], where):
            progress(ProgressEvent("loading", note=note))


def truncation_notes(judges: Sequence[Judge], texts: Sequence[str], where: str) -> list[str]:
    """List the judges that cut off prompts.

    Args:
        judges: Judges of a run.
        texts: Texts that the judges read: the `reward_prompt` where there is one.
        where: Name of the set of prompts, such as `prompts.train`.

    Returns:
        One line per judge that cuts any, with their number, its limit and the longest.
    """
    notes = []
    texts = list(dict.fromkeys(texts))
    for judge in judges:
        if isinstance(judge, FramedJudge) and judge.prompt is not None:
            continue  # the fixed prompt replaces them
        reward = judge.reward
        if not isinstance(reward, FrozenReward | LatentClip) or reward.context_length is None:
            continue
        cut = [texts[position] for position in reward.truncated(texts)]
        if cut:
            longest = max(cut, key=len)
            shown = longest if len(longest) <= MOST_SHOWN else longest[: MOST_SHOWN - 3] + "..."
            notes.append(
                f"warning: {where}: the judge {judge.label} reads {reward.context_length} tokens, "
                f"but {len(cut)} of {len(texts)} prompts are longer: their ends are not judged. "
                f"The longest: {shown!r} ({len(longest)} characters). Give them a short "
                "reward_prompt"
            )
    return notes

"""Scores from comparisons: which of two clips of one prompt is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from rewards.core.shown_clip import Question, ShownClip
from rewards.errors import RewardError

Preference = Callable[[Question], float]
"""The answer to a question about two clips: preference for the first, in [0, 1]."""


def comparisons(
    clips: Sequence[ShownClip], prompts: Sequence[str], *, both_orders: bool, who: str
) -> list[Question]:
    """List the comparisons that a call needs: every pair of different clips of one prompt.

    The order within a pair is that of the clips' hashes, so it depends on nothing else: neither on
    the place in the batch, which would favour the first clip of each, nor on other clips.

    Args:
        clips: The clips of the call.
        prompts: Their prompts.
        both_orders: Also ask in the other order.
        who: Name of the judge, for the message.

    Raises:
        RewardError: A prompt has only one clip.
    """
    found: dict[tuple[str, str, str], Question] = {}
    for prompt, places in _groups(prompts).items():
        if len(places) == 1:
            raise RewardError(
                f"the judge {who} compares clips of one prompt, but {prompt[:80]!r} has one clip "
                "in this call; give it two or more (train.clips_per_prompt in a recipe)"
            )
        for i, j in combinations(places, 2):
            first, second = sorted((clips[i], clips[j]), key=lambda clip: clip.digest)
            if first.digest == second.digest:
                continue
            pairs = [(first, second), (second, first)] if both_orders else [(first, second)]
            for a, b in pairs:
                found.setdefault((a.digest, b.digest, prompt), Question((a, b), prompt))
    return list(found.values())


def scores_of(
    clips: Sequence[ShownClip],
    prompts: Sequence[str],
    preference: Preference,
    *,
    both_orders: bool,
) -> list[float]:
    """Return each clip's mean preference over the others of its prompt, minus 0.5.

    The scores of a prompt's clips sum to 0. Equal clips draw.

    Args:
        clips: The clips of the call.
        prompts: Their prompts.
        preference: Looks up the answer to a question of `comparisons`.
        both_orders: Average both orders, against a judge that prefers a place.
    """

    def of_pair(a: ShownClip, b: ShownClip, prompt: str) -> float:
        if a.digest == b.digest:
            return 0.5
        if a.digest > b.digest:
            return 1.0 - of_pair(b, a, prompt)
        asked = preference(Question((a, b), prompt))
        if not both_orders:
            return asked
        return (asked + 1.0 - preference(Question((b, a), prompt))) / 2

    scores = [0.0] * len(clips)
    for prompt, places in _groups(prompts).items():
        for i in places:
            wins = [of_pair(clips[i], clips[j], prompt) for j in places if j != i]
            scores[i] = sum(wins) / len(wins) - 0.5
    return scores


def _groups(prompts: Sequence[str]) -> dict[str, list[int]]:
    """Return the places of each prompt."""
    groups: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(place)
    return groups

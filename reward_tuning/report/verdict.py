"""The verdict on top of the report, and what the numbers behind it cannot show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reward_tuning.report.evaluations import Evaluation, Side
from reward_tuning.schema.guards_section import DiversityRule, MotionRule
from reward_tuning.statistics import verdicts as words

MOTION, DIVERSITY = MotionRule(), DiversityRule()
"""Bounds of the ratio to the base, those of the guards (docs/overoptimisation.md)."""


@dataclass(frozen=True)
class Verdict:
    """What the report says first.

    Attributes:
        sentence: One or two sentences with the change, its interval and a verdict; names stand in
            backticks.
        detail: What the sentence is based on.
        comparisons: How many metrics were compared, and what was corrected.
        unseen: What no judge here can see, in sentences.
        warnings: Motion or diversity that have left their bounds.
    """

    sentence: str
    detail: str
    comparisons: str
    unseen: tuple[str, ...]
    warnings: tuple[str, ...]


def deciding_side(evaluation: Evaluation) -> int | None:
    """Return the index of the side that the verdict is about: full strength, as in training."""
    compared = [i for i, side in enumerate(evaluation.sides) if side.against is not None]
    return min(compared, key=lambda i: (abs(evaluation.sides[i].strength - 1.0), i), default=None)


def verdict_of(evaluation: Evaluation) -> Verdict:
    """Return the verdict on the deciding metric of the deciding side."""
    index, unseen = deciding_side(evaluation), _unseen(evaluation)
    side = None if index is None else evaluation.sides[index]
    if side is None or not side.difference:
        return Verdict("There is no verdict yet.", "", "", unseen, ())
    found = compared(side, evaluation)
    start = evaluation.start or "base"
    adapters = {one.adapter for one in evaluation.sides if one.against is not None}
    tuned = side.name if len(adapters) > 1 else "the tuned model"
    detail = (
        f"{start[0].upper()}{start[1:]} against {tuned} at strength {side.strength:g}, on "
        f"{found['prompts']} held-out prompts, with the same noise on both sides."
    )
    return Verdict(
        words.verdict_sentence(found),
        detail,
        words.comparisons_line(found),
        unseen,
        _warnings(evaluation, side),
    )


def side_verdicts(side: Side, evaluation: Evaluation) -> dict[str, str]:
    """Return the word of the verdict on each metric of a side."""
    return words.verdicts(compared(side, evaluation), evaluation.primary)


def compared(side: Side, evaluation: Evaluation) -> dict[str, Any]:
    """Return a side's comparison in the form of evaluation.json, as the verdicts read it."""
    counts = [c.prompts for c in side.difference.values() if c.prompts is not None]
    return {
        "primary": evaluation.primary,
        "trained_on": evaluation.trained_on,
        "never_trained_on": evaluation.never_trained_on,
        "prompts": evaluation.prompts or max(counts, default=len(evaluation.questions)),
        "difference": {
            name: change.model_dump(exclude_unset=True) for name, change in side.difference.items()
        },
    }


def _unseen(evaluation: Evaluation) -> tuple[str, ...]:
    found = []
    if evaluation.never_trained_on:
        judges = " and ".join(f"`{name}`" for name in evaluation.never_trained_on[:3])
        found.append(
            f"What {judges} overlooks: it gave no gradient, but it is a network with preferences "
            "of its own, and blind to what it was never taught."
        )
    elif evaluation.trained_on:
        found.append(
            "Whether the judges were fooled: all of them were trained on, so a rise proves little. "
            "Name another in evaluation.held_out_rewards."
        )
    found.append("Prompts unlike those of this evaluation.")
    return tuple(found)


def _warnings(evaluation: Evaluation, side: Side) -> tuple[str, ...]:
    assert side.against is not None
    base = evaluation.sides[side.against].means
    found = []
    low, high = MOTION.low, MOTION.high
    ratio = _ratio(side.means, base, "motion")
    if ratio is not None and not low <= ratio <= high:
        found.append(f"Motion is {ratio:.2f} of the base's; {low:g} to {high:g} is usual.")
    for name in ("diversity", "feature_diversity"):  # of a run, and of `evaluate`
        ratio = _ratio(side.means, base, name)
        if ratio is not None and ratio < DIVERSITY.low:
            found.append(
                f"Diversity is {ratio:.2f} of the base's: below {DIVERSITY.low:g} clips become "
                "alike."
            )
    return tuple(found)


def _ratio(
    now: Mapping[str, float | None], base: Mapping[str, float | None], metric: str
) -> float | None:
    above, below = now.get(metric), base.get(metric)
    return above / below if above is not None and below else None

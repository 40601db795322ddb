"""Sentences about an evaluation: how much was compared, and whether a gain holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reward_tuning.evidence.metric_names import SHARPNESS
from reward_tuning.statistics.verdicts import HIGHER, MIN_PROMPTS, verdict

Record = Mapping[str, Any]


def comparisons(sides: Sequence[Record]) -> int:
    """Return the number of comparisons with a base."""
    return sum(len(side.get("difference", {})) for side in sides)


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Describe an evaluation in sentences.

    Args:
        found: Content of evaluation.json of `reward-tuning evaluate`.
    """
    sides, primary = found["sides"], found["primary"]
    lines = [_compared(sides, primary)]
    if found["prompts"] < MIN_PROMPTS:
        lines.append(
            f"too few prompts for verdicts: {found['prompts']}; {MIN_PROMPTS} or more are needed"
        )
    elif primary is not None:
        holds = (_holds(side, sides, primary) for side in _main(sides))
        lines += [line for line in holds if line]
    if primary is not None and len(_main(sides)) > 1:
        lines.append(_highest(_main(sides), primary))
    for side in _main(sides):
        lines += [_kept(side, label, share) for label, share in side.get("gain_kept", {}).items()]
    if found.get("features_of"):
        lines.append(
            "feature_diversity: 1 - cosine of the image features of "
            f"{found['features_of']}, over pairs of clips of one prompt"
        )
    return lines


def rises(change: Mapping[str, Any]) -> bool:
    """Return whether a metric rose, its p corrected for the number of comparisons."""
    return verdict(change, change["prompts"], decides=False) == HIGHER


def gain_kept(difference: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the share of each judge's gain that imperceptible changes of the clips leave.

    Of judges that rose and whose sharpness is measured: 1 less the rise of the sharpness over the
    rise of the score.
    """
    found = {}
    for name, change in difference.items():
        label = name.removeprefix(SHARPNESS)
        if name.startswith(SHARPNESS) and label in difference and rises(difference[label]):
            found[label] = 1.0 - change["mean"] / difference[label]["mean"]
    return found


def _main(sides: Sequence[Record]) -> list[Record]:
    """Return the sides with the main sampling that are compared with the base."""
    return [side for side in sides if side["against"] == 0]


def _compared(sides: Sequence[Record], primary: str | None) -> str:
    compared = [side for side in sides if "difference" in side]
    count = comparisons(sides)
    if not count:
        return "nothing is compared: only the base was evaluated"
    each = len(compared[0]["difference"])
    text = (
        f"{count} comparisons with the base: {len(compared)} side{'s' * (len(compared) > 1)} x "
        f"{each} metrics"
    )
    if primary is None:
        return f"{text}; p values are corrected for their number (Holm)"
    if len(compared) == 1:
        return (
            f"{text}; {primary} was named beforehand and decides, the p values of the others are "
            "corrected for their number (Holm)"
        )
    return (
        f"{text}; {primary} decides, its p values are corrected for the number of sides, those of "
        "the others for the number of all others (Holm)"
    )


def _highest(sides: Sequence[Record], primary: str) -> str:
    best = max(sides, key=lambda side: side["means"].get(primary) or -math.inf)
    return (
        f"highest mean of {primary}: {best['name']}, chosen among {len(sides)}, so its own gain is "
        "flattered; before you quote it, evaluate it alone with another --seed or other --prompts"
    )


def _holds(side: Record, sides: Sequence[Record], primary: str) -> str:
    """Say whether the rise of a full-strength side holds at other steps and guidance scales."""
    others = [
        one
        for one in sides
        if one["against"] not in (None, 0)
        and one["adapter"] == side["adapter"]
        and one["strength"] == side["strength"]
    ]
    change = side.get("difference", {}).get(primary)
    if not others or change is None:
        return ""
    if not rises(change):
        return f"{side['name']}: {primary} did not rise with the main sampling, so nothing can hold"
    held = [one for one in others if rises(one["difference"][primary])]
    lost = [one for one in others if one not in held]
    parts = []
    if held:
        parts.append(f"holds at {', '.join(_how(one, side) for one in held)}")
    if lost:
        parts.append(f"was not seen at {', '.join(_how(one, side) for one in lost)}")
    return f"{side['name']}: the rise of {primary} {'; it '.join(parts)}"


def _how(side: Record, main: Record) -> str:
    if side["steps"] != main["steps"]:
        return f"{side['steps']} steps"
    return f"guidance {side['guidance_scale']:g}"


def _kept(side: Record, label: str, share: float) -> str:
    return (
        f"{side['name']}: {share:.0%} of the rise of {label} is left after changes that nobody "
        f"sees (blur, shift, recompression)"
    )

"""The metric that decides an evaluation, `evaluation.primary`: which names it may have."""

from collections.abc import Sequence

from reward_tuning.schema.mistakes import one_of

MEASURES = ("motion", "brightness", "contrast", "saturation")
OF_SEVERAL_CLIPS = ("diversity",)
ORACLE = (
    "oracle",
    "oracle_colour",
    "oracle_shape",
    "oracle_background",
    "oracle_size",
    "oracle_motion",
    "oracle_tone_off",
)
"""Metrics of the embedded world's oracle, where it applies to the held-out prompts."""


def primary_fault(primary: str, judges: Sequence[str], seeds: int) -> str | None:
    """Return what is wrong with a name under `evaluation.primary`; None if an evaluation has it.

    Args:
        primary: The name.
        judges: Labels of all judges of the recipe.
        seeds: Clips for each prompt.
    """
    if primary in OF_SEVERAL_CLIPS and seeds < 2:
        return "is measured with evaluation.seeds of 2 or more only"
    allowed = [*judges, *MEASURES, *OF_SEVERAL_CLIPS, *ORACLE]
    if primary in allowed:
        return None
    return one_of(primary, allowed)

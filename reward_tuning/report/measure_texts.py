"""What each measure of clips means: the metrics of an evaluation that are no judge's score."""

from __future__ import annotations

from reward_tuning.report.metric import MetricText

_LIGHT = (
    "Off by more than a tenth: the judges like another light or colour; look at the clips, add an "
    "anchor or a second judge, or use a lower strength"
)
_ORACLE = (
    "Down: the clips follow the prompt less; train with a judge that reads it. Exact: nothing is "
    "learned, so it cannot be fooled"
)


def _oracle(word: str) -> MetricText:
    return MetricText(
        f"Embedded world only: share of clips whose {word} is that of the prompt, read from the "
        "pixels.",
        "share, 0 to 1",
        "Rises, or stays at 1",
        _ORACLE,
        "higher",
    )


MEASURES: dict[str, MetricText] = {
    "motion": MetricText(
        "Mean absolute difference of neighbouring frames. Anything that changes counts, flicker "
        "too.",
        "levels of [0, 1]",
        "0.8 to 1.25 of the base; good runs here had 0.94 to 1.08, ruined ones 1.37 to 1.5",
        "Down: judges of single frames prefer stills; set `train.motion`, or add a judge of "
        "motion. Up: outlines flicker; look at the clips",
        "near the base",
    ),
    "brightness": MetricText(
        "Mean luma of the frames.",
        "levels of [0, 1]",
        "Within a tenth of the base; -5 % in the demo",
        _LIGHT,
        "near the base",
    ),
    "contrast": MetricText(
        "Standard deviation of luma within a frame.",
        "levels of [0, 1]",
        "Within a tenth of the base; -3 % in the demo",
        _LIGHT + "; strong guidance: `sampling.guidance_rescale`",
        "near the base",
    ),
    "saturation": MetricText(
        "Mean chroma: the largest of red, green and blue less the smallest.",
        "levels of [0, 1]",
        "Within a tenth of the base; +2 % in the demo",
        _LIGHT,
        "near the base",
    ),
    "diversity": MetricText(
        "Distance of clips of one prompt from different noise; needs `evaluation.seeds` of 2 or "
        "more.",
        "levels of [0, 1]",
        "0.8 of the base or more; good runs here had 0.91 to 1.06",
        "Down: every noise gives the same clip; an anchor, a lower learning rate or an earlier "
        "checkpoint",
        "near the base",
    ),
    "oracle": MetricText(
        "Embedded world only: share of clips that are right in every respect, read from the "
        "pixels.",
        "share, 0 to 1",
        "Rises: from 0.41 to 0.59 in the demo",
        _ORACLE,
        "higher",
    ),
    "oracle_colour": _oracle("colour"),
    "oracle_shape": _oracle("shape"),
    "oracle_background": _oracle("background"),
    "oracle_size": _oracle("size"),
    "oracle_motion": _oracle("motion"),
    "oracle_tone_off": MetricText(
        "Embedded world only: distance of the background's grey to the range of its word.",
        "levels of [0, 1]",
        "0; from 0.0028 to 0.0000 in the demo",
        _LIGHT,
        "lower",
    ),
    "feature_diversity": MetricText(
        "Distance of clips of one prompt from different noise: 1 - cosine of a judge's image "
        "features; written by `evaluate` with two seeds or more.",
        "0 to 2",
        "0.8 of the base or more",
        "Down: every noise gives the same clip; an anchor, a lower learning rate or an earlier "
        "checkpoint",
        "near the base",
    ),
    "drift": MetricText(
        "Distance of the velocity to the base's, as a share of the length of the base's; written "
        "by `evaluate`.",
        "ratio",
        "Below 0.3, where the guards warn; runs that ruined their clips passed it by step 40",
        "Above: an anchor (`train.anchor`), a lower learning rate, or a lower strength",
        "lower",
    ),
    "sharpness_JUDGE": MetricText(
        "How much of a judge's score a change of the clip takes that no viewer sees (a slight "
        "blur, a shift, a recompression); written by `evaluate`.",
        "as the judge",
        "As for the base",
        "Up with the score: the gain is in patterns of pixels; `robust_radius` and `augmentation` "
        "of the judge, or another judge",
        "lower",
    ),
}
"""Measures of clips that are no judge's score, by their name in evaluation.json."""

"""The numbers of guards.jsonl: a row for each evaluation by the guards."""

from __future__ import annotations

from reward_tuning.report.metric import Metric, MetricText

_DIFFERENCE = "Paired difference to the base on the guards' prompts, with the same noise"
_HELD_OUT = "A held-out judge does not fall below the base; on few prompts the interval is wide"
_FALLS = (
    "Falls twice in a row while the training reward rises: the rule `held_out` fires; take the "
    "checkpoint before, see docs/overoptimisation.md"
)
GUARD_METRICS = tuple(
    Metric("guards", key, text)
    for key, text in (
        (
            "step",
            MetricText(
                "Optimiser steps done when the guards evaluated.",
                "steps",
                "Multiples of `guards.every`, and the last step",
                "`guards.every` decides it",
            ),
        ),
        (
            "seconds",
            MetricText(
                "Time of this evaluation.",
                "seconds",
                "A small share of the steps between two evaluations",
                "Raise `guards.every`, or lower `guards.prompts`",
                "lower",
            ),
        ),
        (
            "reward/before",
            MetricText(
                "Training reward, mean over the steps up to the evaluation before; null at first.",
                "weighted score",
                "Below `reward/now`",
                "See `loss`",
                "higher",
            ),
        ),
        (
            "reward/now",
            MetricText(
                "Training reward, mean over the steps since the evaluation before.",
                "weighted score",
                "Above `reward/before`",
                "See `loss`",
                "higher",
            ),
        ),
        (
            "measures/METRIC/base",
            MetricText(
                "Mean of a judge or measure over the clips of the base.",
                "as the metric",
                "Constant",
                "-",
            ),
        ),
        (
            "measures/METRIC/now",
            MetricText(
                "Mean of a judge or measure over the clips of now.",
                "as the metric",
                _HELD_OUT,
                _FALLS,
            ),
        ),
        (
            "measures/METRIC/mean",
            MetricText(f"{_DIFFERENCE}: mean.", "as the metric", _HELD_OUT, _FALLS),
        ),
        (
            "measures/METRIC/low",
            MetricText(
                f"{_DIFFERENCE}: lower end of the 95 % interval.",
                "as the metric",
                "Not far below 0 for a held-out judge",
                "A wide interval: raise `guards.prompts`",
            ),
        ),
        (
            "measures/METRIC/high",
            MetricText(
                f"{_DIFFERENCE}: upper end of the 95 % interval.",
                "as the metric",
                "Above 0 for a held-out judge",
                _FALLS,
            ),
        ),
        (
            "measures/METRIC/each[]",
            MetricText(
                f"{_DIFFERENCE}: of each prompt, in order.",
                "as the metric",
                _HELD_OUT,
                _FALLS,
            ),
        ),
        (
            "motion",
            MetricText(
                "Motion of the clips, as a ratio to the base's.",
                "ratio",
                "0.8 to 1.25; good runs here had 0.94 to 1.08, ruined ones 1.37 to 1.5",
                "Below: judges of single frames prefer stills; set `train.motion`, or add a judge "
                "of motion. Above: outlines flicker; look at the clips",
                "near the base",
            ),
        ),
        (
            "motion_error",
            MetricText(
                "Standard error of `motion` over the guards' prompts.",
                "ratio",
                "Small against the distance of the bounds; the rule fires only beyond it",
                "Raise `guards.prompts`",
                "lower",
            ),
        ),
        (
            "diversity",
            MetricText(
                "Distance of clips of one prompt from different noise, as a ratio to the base's: "
                "of a judge's image features, or of pixels; `diversity_of` says which.",
                "ratio",
                "0.8 or more; good runs here had 0.91 to 1.06",
                "Below: every noise gives the same clip; an anchor, a lower learning rate, or the "
                "checkpoint before",
                "near the base",
            ),
        ),
        (
            "diversity_error",
            MetricText(
                "Standard error of `diversity` over the prompts with two clips.",
                "ratio",
                "Small against the distance of the bound; the rule fires only beyond twice that",
                "Raise `guards.diversity.prompts`",
                "lower",
            ),
        ),
        (
            "drift",
            MetricText(
                "Distance of the velocity to the base's, on noised clips of the base, as a share "
                "of the length of the base's velocity.",
                "ratio",
                "Below `guards.drift.high`; levels off",
                "Rises throughout: an anchor (`train.anchor`), or a lower learning rate",
                "lower",
            ),
        ),
        (
            "back_to",
            MetricText(
                "Step to which a rollback led, 0 for the start; only in rows with a rollback.",
                "steps",
                "No row has it",
                "See the rule in `fired`; docs/overoptimisation.md lists the cures",
            ),
        ),
        (
            "best",
            MetricText(
                "Step of the best checkpoint so far, by the held-out judge.",
                "steps",
                "Near `step`",
                "Far behind `step`: the training gains nothing more; stop it",
            ),
        ),
    )
)

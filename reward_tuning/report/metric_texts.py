"""The text of every recorded number: the one source of tooltips and of docs/metrics.md."""

from __future__ import annotations

import re
from dataclasses import replace

from reward_tuning.report.evaluation_metrics import EVALUATION_METRICS
from reward_tuning.report.guard_metrics import GUARD_METRICS
from reward_tuning.report.judge_texts import JUDGE_SCORE, JUDGE_TEXTS
from reward_tuning.report.measure_texts import MEASURES
from reward_tuning.report.metric import Better, Metric, MetricText, Place, number_keys
from reward_tuning.report.training_metrics import DISTIL_METRICS, FINETUNE_METRICS, RUN_METRICS

__all__ = [
    "METRICS",
    "Better",
    "Metric",
    "MetricText",
    "Place",
    "find_metric",
    "metric_text",
    "number_keys",
]

METRICS: tuple[Metric, ...] = (
    *EVALUATION_METRICS,
    *RUN_METRICS,
    *GUARD_METRICS,
    *FINETUNE_METRICS,
    *DISTIL_METRICS,
)
"""Every recorded number; the order decides which file a name without a place means."""

_OF_TRACKER = re.compile(r"step-\d+/(grad_norm|adjoint_norm)")


def metric_text(name: str, place: Place | None = None, kind: str | None = None) -> MetricText:
    """Return what a number means.

    Args:
        name: A measure of clips (`motion`), the label of a judge, or a key as `Metric.key` writes
            it (`reward/hps`, `active_steps[].grad_norm`); trackers' names of the active steps
            (`step-03/grad_norm`) are known, too.
        place: Where the number is recorded; needed where two files have the same key: `motion` of
            an evaluation is measured on pixels, that of a training on latents. None looks for a
            measure first, then in the evaluation, the training, the guards, the fine-tuning and
            the distillation.
        kind: Kind of the judge that the name is the label of; None = as the label, which is the
            kind unless the recipe names the judge.

    Returns:
        The text. A name that is none of these is the label of a judge: recipes name them freely.
    """
    if place in (None, "evaluation") and (measure := _measure(name)):
        return measure
    if found := find_metric(name, place):
        return found.text
    return JUDGE_TEXTS.get(kind or name) or replace(
        JUDGE_SCORE, what=f"Score of the judge {name}. {JUDGE_SCORE.what}"
    )


def _measure(name: str) -> MetricText | None:
    prefix = "sharpness_"  # of a judge, whose label follows
    return MEASURES.get(f"{prefix}JUDGE" if name.startswith(prefix) else name)


def find_metric(name: str, place: Place | None = None) -> Metric | None:
    """Return the recorded number that a key means; None for a key that no file has.

    Args:
        name: A key, as `Metric.key` writes it.
        place: Where it is recorded; None looks everywhere.
    """
    if found := _OF_TRACKER.fullmatch(name):
        name = f"active_steps[].{found[1]}"
    for metric in METRICS:
        if place in (None, metric.place) and metric.matches(name):
            return metric
    return None

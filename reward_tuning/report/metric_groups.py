"""Metrics in the groups in which people read them, with their labels and explanations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from reward_tuning.report.evaluations import Evaluation
from reward_tuning.report.judge_texts import held_out_text
from reward_tuning.report.metric_texts import MetricText, metric_text
from reward_tuning.statistics.verdicts import ORACLE, TONE_OFF, is_share, of_oracle

NEVER, TRAINED, MEASURES = "never trained on", "trained on", "measures"
ORDER = (NEVER, TRAINED, ORACLE, MEASURES)
"""The groups as the table of a run has them, but the held-out judges first."""


def label_of(metric: str) -> str:
    """Return a metric's name for people."""
    if metric == ORACLE:
        return "oracle: all right"
    if metric == TONE_OFF:
        return "oracle: background off"
    if of_oracle(metric):
        return f"oracle: {metric.removeprefix(f'{ORACLE}_')} right"
    return metric


def group_of(metric: str, evaluation: Evaluation) -> str:
    """Return the group of a metric: judges by their role, the oracle, everything else."""
    if metric in evaluation.never_trained_on:
        return NEVER
    if metric in evaluation.trained_on:
        return TRAINED
    return ORACLE if of_oracle(metric) else MEASURES


def metric_records(evaluation: Evaluation, kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what the page says of each metric, group by group.

    Args:
        evaluation: The evaluation.
        kinds: Label of a judge to its kind.
    """
    return [
        {
            "name": metric,
            "label": label_of(metric),
            "group": group_of(metric, evaluation),
            "share": is_share(metric),
            "text": asdict(_text(metric, evaluation, kinds.get(metric))),
        }
        for metric in sorted(
            evaluation.metrics, key=lambda one: ORDER.index(group_of(one, evaluation))
        )
    ]


def _text(metric: str, evaluation: Evaluation, kind: str | None) -> MetricText:
    text = metric_text(metric, "evaluation", kind)
    return held_out_text(text) if group_of(metric, evaluation) == NEVER else text

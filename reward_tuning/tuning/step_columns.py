"""The columns of a reward tuning in the row of a step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from reward_tuning.tuning.step import BatchReport


def step_columns(
    reports: Sequence[BatchReport], means: Mapping[str, float], replay: float | None = None
) -> dict[str, Any]:
    """Return the columns of a reward tuning in the row of one optimiser step.

    Args:
        reports: Reports of this process's batches.
        means: `loss`, `motion` and `reward/LABEL`, over every batch and process.
        replay: Flow-matching loss of the replayed clips; None where none were.
    """
    drifts = [report.drift for report in reports if report.drift is not None]
    by_step: dict[int, list[Any]] = defaultdict(list)
    for report in reports:
        for seen in report.steps:
            by_step[seen.step].append(seen)

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    def mean_if_known(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return mean(known) if known else None

    return {
        "reward": {
            name.removeprefix("reward/"): value
            for name, value in means.items()
            if name.startswith("reward/")
        },
        "active_steps": [
            {
                "step": i,
                "weight": mean([seen.weight for seen in found]),
                "grad_norm": mean_if_known([seen.gradient_norm for seen in found]),
                "adjoint_norm": mean([seen.adjoint_norm for seen in found]),
                "rerun_error": max(seen.rerun_error for seen in found),
            }
            for i, found in sorted(by_step.items())
        ],
        "rollout": {
            "steps": sum(report.rollout_steps for report in reports),
            "full_steps": sum(report.full_steps for report in reports),
            "kept_steps": sum(report.kept_steps for report in reports),
        },
        **({"spread": spread} if (spread := mean_spread(reports)) else {}),
        "motion": means["motion"],
        "drift": mean(drifts) if drifts else None,
        "replay": replay,
    }


def mean_spread(reports: Sequence[BatchReport]) -> dict[str, float]:
    """Return the spread of each estimated judge's scores, the mean over this process's batches."""
    known = [report.spread for report in reports if report.spread]
    return {name: sum(of[name] for of in known) / len(known) for name in known[0]} if known else {}

"""What a step of a reward tuning says of itself: its row, its plan, and when that is a warning."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from reward_tuning.gradient.plan import Plan
from reward_tuning.runs.metrics import PhaseClock
from reward_tuning.tuning.step import BatchReport

VANISHING = 1e-3  # norm before clipping; the published script's own note on its stalled runs
VANISHING_STEPS = 5
CLIPPING_SHARE, CLIPPING_STEPS = 0.95, 20


class GradientWatch:
    """Says, once each, that the gradient vanishes or that every step is clipped.

    Args:
        max_grad_norm: Of the clipping; None for none.
    """

    def __init__(self, max_grad_norm: float | None) -> None:
        self._limit = max_grad_norm
        self._small = 0
        self._clipped: deque[bool] = deque(maxlen=CLIPPING_STEPS)
        self._told: set[str] = set()

    def see(self, grad_norm: float) -> str | None:
        """Take in a step's gradient norm before clipping; return a warning where one is due."""
        # one of zero is told by `reward_tuning.runs.idle`
        self._small = self._small + 1 if 0 < grad_norm < VANISHING else 0
        self._clipped.append(self._limit is not None and grad_norm > self._limit)
        if self._small == VANISHING_STEPS and self._once("vanishing"):
            return (
                f"the gradient vanishes: {VANISHING_STEPS} steps in a row under {VANISHING:g} "
                "before clipping. Set method.rescale=1, take more or earlier active steps, raise "
                "rewards.*.weight; a hinge (rewards.*.target) that is reached gives none either"
            )
        full = len(self._clipped) == CLIPPING_STEPS
        if full and sum(self._clipped) > CLIPPING_SHARE * CLIPPING_STEPS and self._once("clipped"):
            return (
                f"more than {CLIPPING_SHARE:.0%} of the last {CLIPPING_STEPS} steps were clipped "
                f"to train.max_grad_norm = {self._limit:g}, so the step length no longer follows "
                "the gradient. Raise max_grad_norm, or lower method.nested or rewards.*.weight"
            )
        return None

    def _once(self, what: str) -> bool:
        fresh = what not in self._told
        self._told.add(what)
        return fresh


def step_row(
    step: int,
    reports: Sequence[BatchReport],
    means: Mapping[str, float],
    *,
    grad_norm: float,
    learning_rate: float,
    replay: float | None = None,
    bad_steps: int,
    clock: PhaseClock,
) -> dict[str, Any]:
    """The row of one optimiser step.

    Args:
        step: Counted from 1.
        reports: Of this rank's batches.
        means: `loss`, `motion` and `reward/LABEL`, over every batch and rank.
        grad_norm: Of the whole gradient, before clipping.
        learning_rate: Of this step.
        replay: Flow-matching loss of the replayed clips; None where none were.
        bad_steps: Steps skipped so far, this one included.
        clock: Of this step.
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
        "step": step,
        "loss": means["loss"],
        "reward": {
            name.removeprefix("reward/"): value
            for name, value in means.items()
            if name.startswith("reward/")
        },
        "grad_norm": grad_norm,
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
        },
        "motion": means["motion"],
        "drift": mean(drifts) if drifts else None,
        "replay": replay,
        "learning_rate": learning_rate,
        "bad_steps": bad_steps,
        "seconds": dict(clock.seconds) | {"step": sum(clock.seconds.values())},
        "memory": dict(clock.memory),
    }


def plan_table(sigmas: torch.Tensor, plan: Plan) -> str:
    """The sampler's steps with sigma, |weight| in the reward input, and which receive gradient."""
    lines = ["plan of the first step"]
    if plan.active:
        lines[0] += (
            f": reward read at {plan.reward_input.replace('_', ' ')} of step {plan.stop}, gradient "
            f"scale {plan.gradient_scale:.3g}"
        )
        lines.append("  step   sigma  |weight|  gradient")
    for i, weight in enumerate(plan.weights if plan.active else ()):
        mark = "active" if i in plan.active else ""
        lines.append(f"  {i:4d}  {float(sigmas[i]):.4f}  {abs(weight):8.4f}  {mark}".rstrip())
    for number, renoised in enumerate(plan.renoised):
        scale = plan.look(renoised).gradient_scale * renoised.share
        lines.append(
            f"  {plan.steps + number:4d}  {renoised.sigma:.4f}  {abs(renoised.weight):8.4f}  "
            f"active, the end noised again and taken to {renoised.sigma_to:.4f}; gradient scale "
            f"{scale:.3g}"
        )
    return "\n".join(lines)

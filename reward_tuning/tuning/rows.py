"""Texts about a step of a reward tuning: its plan, and the cause of a zero gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from reward_tuning.gradient.plan import Plan


class ScoredJudge(Protocol):
    """A judge, as far as its hinge goes."""

    @property
    def label(self) -> str:
        """Name of the judge."""

    @property
    def target(self) -> float | None:
        """Score at which its hinge stops rewarding; None for no hinge."""


def why_zero(
    judges: Sequence[ScoredJudge], means: Mapping[str, float], spread: Mapping[str, float]
) -> str:
    """Name the likely cause of a gradient of zero, and the next step.

    Args:
        judges: The judges that are trained on.
        means: `loss` and `reward/LABEL` of the step.
        spread: How far the scores lie apart that each estimated judge compares.
    """
    reached = [
        f"{judge.label} {means[f'reward/{judge.label}']:.4g} of {judge.target:g}"
        for judge in judges
        if judge.target is not None
    ]
    if means["loss"] == 0 and reached:
        return (
            f"The hinge is reached: every clip's score is at its target ({', '.join(reached)}). "
            "Raise rewards.N.target, or set it to null; `reward-tuning calibrate` measures scores"
        )
    if spread and not any(spread.values()):
        return (
            f"{', '.join(spread)} gave every clip of a prompt the same score, so there is nothing "
            "to compare: raise train.clips_per_prompt, or train.pair_distance, or let the judge "
            "score more finely"
        )
    names = ", ".join(judge.label for judge in judges)
    return (
        f"The scores of {names} do not change with the frames: look for rounding, comparisons, "
        ".detach() or a constant in a judge of your own"
    )


def plan_table(sigmas: torch.Tensor, plan: Plan) -> str:
    """Describe a plan: sigma and |weight| of each sampler step, and whether it is active."""
    lines = ["plan of the first step"]
    if plan.active:
        lines[0] += (
            f": reward read at {plan.reward_input.replace('_', ' ')} of step {plan.stop}, gradient "
            f"scale {plan.gradient_scale:.3g}"
        )
        lines.append("  step   sigma  |weight|  gradient")
    if plan.matched:
        lines[0] += (
            f": every clip is rolled out to the end, noised again to {plan.matched} fresh levels "
            "and matched there by its advantage; no sampler step receives gradient"
        )
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

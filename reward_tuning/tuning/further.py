"""Further updates on one rollout: the sweep again with the updated adapter, nothing else anew.

A clip is a function of its noise, so the gradient of its reward needs no importance weight, as a
policy gradient's would. But states and reward gradient are those of a slightly older adapter: to
first order in the step that is the same gradient (docs/methods.md), and no measurement of the
reward ends it. So the distance between velocity now and velocity then does (`reuse_limit`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from reward_tuning.runs.ranks import largest_of_all
from reward_tuning.runs.update import PhaseClock
from reward_tuning.tuning.step import Judged, StepOptions, sweep


class FurtherUpdates:
    """The updates of a step after its first (`runs.update.Further`).

    Args:
        judged: Batches of this process in this step.
        count: Number of further updates.
        limit: Largest re-run error of an update that is made; None for no limit.
        parameters: Parameters of the adapter.
        options: Choices of the recipe.
        accelerator: Processes of the run; together they go on or end.
        besides: Adds the gradients of other losses of the step, such as the replay's.
    """

    def __init__(
        self,
        judged: Sequence[Judged],
        count: int,
        limit: float | None,
        *,
        parameters: Sequence[Tensor],
        options: StepOptions,
        accelerator: Accelerator,
        besides: Callable[[PhaseClock], None] = lambda clock: None,
    ) -> None:
        self._judged, self._count, self._limit = judged, count, limit
        self._parameters, self._options = parameters, options
        self._accelerator, self._besides = accelerator, besides
        self._number = 0
        self._error = 0.0

    def gradient(self, clock: PhaseClock) -> bool:
        """Leave the next update's gradient in `.grad`; return whether there is one to take."""
        if self._number == self._count:
            return False
        self._number += 1
        with clock("sweep"):
            swept = [
                sweep(of, self._parameters, self._options, update=self._number)[0]
                for of in self._judged
            ]
            errors = [step.rerun_error for reports in swept for step in reports]
            self._error = largest_of_all(max(errors, default=0.0), self._accelerator)
        if self._limit is not None and not self._error <= self._limit:
            return False
        self._besides(clock)
        return True

    def columns(self, norms: Sequence[float]) -> Mapping[str, Any]:
        """Return the columns of the step's row, given the norm of each further update made."""
        return further_columns(norms, self._error)


def further_columns(norms: Sequence[float], rerun_error: float) -> dict[str, Any]:
    """Return the columns of further updates.

    Args:
        norms: Norm of the gradient of each one made.
        rerun_error: Relative distance of the last one's velocities from the older adapter's.
    """
    return {
        "further": {
            "updates": len(norms),
            "rerun_error": rerun_error,
            "grad_norm": sum(norms) / len(norms) if norms else None,
        }
    }

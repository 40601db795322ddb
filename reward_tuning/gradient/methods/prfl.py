"""PRFL: a judge of noisy latents, one step, no decoder (arXiv 2511.21541)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, Strict

from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods.method import Method
from reward_tuning.gradient.plan import Plan, chain_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class PRFL(Method):
    """PRFL (arXiv 2511.21541): rewards of kind latent judge a noisy state; nothing is decoded.

    The paper's gain in motion needs all steps, the default. The authors roll out with UniPC and
    without guidance (`sampling.negative: none` here). A multistep solver gives v_s another weight,
    1.5 to 2 times that of the Euler step; Adam undoes a constant factor.
    """

    judges_latents: ClassVar[bool] = True

    kind: Literal["prfl"]
    step_range: Annotated[tuple[float, float], Strict(False)] = Field(
        default=(0.0, 1.0),
        description="Part of the steps that the trained one is drawn from: 0 the first, 1 the last",
    )

    @property
    def not_at_end(self) -> str:
        """The rollout always stops early."""
        return "method prfl stops at a step drawn anew each time"

    @property
    def one_plan_only(self) -> str:
        """The stop decides the one active step."""
        return "method prfl trains one step, and the stop of the rollout decides which"

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Draw the plan: a step s of 0 ... N - 2; read (x_{s+1}, sigma_{s+1}), train v_s alone.

        Raises:
            TuningError: A range out of bounds, or a table of one step.
        """
        import torch

        steps = len(sigmas) - 1
        low, high = self.step_range
        if steps < 2:
            raise TuningError("sampling.steps is 1; prfl needs 2 or more, for it reads between two")
        if not 0.0 <= low < high <= 1.0:
            raise TuningError(
                f"method.step_range is {list(self.step_range)}; needed is 0 <= low < high <= 1"
            )
        place = float(torch.rand((), generator=draw, dtype=torch.float64))
        step = int((low + (high - low) * place) * (steps - 1))
        return Plan(
            steps=steps,
            stop=step + 1,
            reward_input="state",
            active=(step,),
            weights=chain_weights(sigmas, step + 1, "state"),
        )

"""DRTune: K spaced steps, no gradient through the denoiser's input (Wu et al., arXiv 2405.00760).

There is no official code; the spacing and the early stop follow the re-implementation in FlowBP
(arXiv 2606.11075).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods.method import Method, Rescale, SmallestStep
from reward_tuning.gradient.plan import Plan, RewardInput, chain_weights, steps_that_matter
from reward_tuning.section import Positive

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DRTune(Method):
    """DRTune (arXiv 2405.00760): spaced steps, gradient stopped at the denoiser's input.

    The paper has K = 5 and `rescale: 0`, FlowBP K = 3 and a stop range of 0.4. Without early stop
    the reward reads the true end, the better reward input by LeapAlign's ablation.
    """

    kind: Literal["drtune"]
    active_steps: Positive = Field(description="K, evenly spaced steps that receive gradient")
    early_stop: bool = Field(
        default=True,
        description="true = the reward reads the posterior mean at a stop drawn anew each time; "
        "false = it reads the true end of the chain",
    )
    stop_range: float = Field(
        default=0.4,
        gt=0.0,
        lt=1.0,
        description="An early stop lies in this last share of the steps, rounded",
    )
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25

    @property
    def not_at_end(self) -> str:
        """Only with an early stop."""
        stops = "the stop is drawn anew each time; set method.early_stop=false"
        return stops if self.early_stop else ""

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Draw the plan: K equally spaced steps with a random offset, and an early stop.

        With early stop, s = N - U{1 ... m}, m = stop_range N rounded and at least 1, and the reward
        reads x_s - s_s v_s. The executed steps are 0 ... s; the stop step s is one of them and
        becomes active when the spacing lands on it. Without, the reward reads x_N and all steps are
        executed. Steps shorter than `smallest_step` of the median are left out of the spacing.

        Raises:
            TuningError: K exceeds the steps that the earliest stop leaves.
        """
        import torch

        steps = len(sigmas) - 1
        m = max(1, round(self.stop_range * steps))
        # Both draws in any case, so that other keys leave the later plans of a seed unchanged.
        back = int(torch.randint(1, m + 1, (), generator=draw))
        jitter = float(torch.rand((), generator=draw, dtype=torch.float64))

        reward_input: RewardInput = "posterior_mean" if self.early_stop else "end"
        self._check_room(sigmas, m, reward_input)
        stop = steps - back if self.early_stop else steps
        weights = chain_weights(sigmas, stop, reward_input)
        candidates = steps_that_matter(weights, self.smallest_step)
        stride = len(candidates) // self.active_steps
        offsets = len(candidates) - (self.active_steps - 1) * stride
        offset = int(jitter * offsets)
        return Plan(
            steps=steps,
            stop=stop,
            reward_input=reward_input,
            active=tuple(candidates[offset + k * stride] for k in range(self.active_steps)),
            weights=weights,
            nested=0.0,
            rescale=self.rescale,
        )

    def _check_room(self, sigmas: Tensor, m: int, reward_input: RewardInput) -> None:
        """Check K against every possible stop, so that no draw fails in the middle of a run."""
        steps = len(sigmas) - 1
        for stop in range(steps - m, steps) if self.early_stop else [steps]:
            weights = chain_weights(sigmas, stop, reward_input)
            fewest = len(steps_that_matter(weights, self.smallest_step))
            if self.active_steps > fewest:
                shorter = "; lower method.stop_range or take more sampling steps"
                raise TuningError(
                    f"method.active_steps is {self.active_steps}; with {steps} sampling steps"
                    + (f" and a stop at step {stop}" if self.early_stop else "")
                    + f" allowed is 1 ... {fewest}"
                    + (shorter if self.early_stop else "")
                )

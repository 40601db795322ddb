"""The strategies of EasyAnimate's published reward script, for those who move over.

`--backprop_strategy last | tail | uniform | random` with its other flags, gradient for gradient: no
rescale, the short last step counted, a step between two chosen ones a constant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, Strict

from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods.method import Method
from reward_tuning.gradient.plan import Plan, chain_weights
from reward_tuning.section import NotNegative, Positive

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class EasyAnimate(Method):
    """EasyAnimate's published reward script: its strategies, without rescale.

    The script's default of `--backprop_random_end_step`, 50, lies one past the end of its 50 steps,
    and it ignores steps of its list that lie past the end; both are refused here.
    """

    kind: Literal["easyanimate"]
    strategy: Literal["last", "tail", "uniform", "random"] = Field(
        default="tail", description="Its --backprop_strategy"
    )
    active_steps: Positive = Field(default=10, description="Its --backprop_num_steps")
    first_step: NotNegative = Field(default=0, description="Its --backprop_random_start_step")
    last_step: NotNegative | None = Field(
        default=None, description="Its --backprop_random_end_step, included; null = the last"
    )
    stop_input_gradient: bool = Field(
        default=False, description="Its --stop_latent_model_input_gradient"
    )
    steps_list: Annotated[tuple[NotNegative, ...] | None, Strict(False)] = Field(
        default=None,
        description="Its --backprop_step_list: these steps every time, in place of the strategy",
    )

    @property
    def steps_wanted(self) -> int:
        """None of its own with a list, which takes the place of the number."""
        return self.active_steps if self.steps_list is None else 0

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Draw the plan of the published script's loop; the reward on the true end.

        - `last`: step N - 1 alone. Its |d| is 0.0027 on V5.1's table: next to no gradient.
        - `tail`: the last K.
        - `uniform`: K steps N // K apart, from a start drawn from 0 ... N // K, both ends included.
        - `random`: K distinct steps of `first_step` ... `last_step`.

        As in the script, `uniform` may draw one step past the end, which then is never run: K - 1
        remain. Where none would (K = 1), the last step is taken; the script trains nothing there.

        Raises:
            TuningError: K exceeds the steps there are, a range or a step outside 0 ... N - 1, or a
                step given twice.
        """
        import torch

        weights = chain_weights(sigmas)
        steps = len(weights)
        if self.steps_list is not None:
            return self._plan_of(weights, self._checked_list(self.steps_list, steps))
        end = steps - 1 if self.last_step is None else self.last_step
        first, count = self.first_step, self.active_steps
        if not 0 <= first <= end < steps:
            raise TuningError(
                f"method.first_step and last_step are {first} and {end}; allowed is 0 ... "
                f"{steps - 1}, the first not above the last"
            )
        room = end - first + 1 if self.strategy == "random" else steps
        if self.strategy != "last" and count > room:  # `last` ignores K, as the script does
            raise TuningError(f"method.active_steps is {count}; allowed is 1 ... {room}")
        match self.strategy:
            case "last":
                active = [steps - 1]
            case "tail":
                active = list(range(steps - count, steps))
            case "uniform":
                interval = steps // count
                start = int(torch.randint(0, interval + 1, (), generator=draw))
                active = [start + i * interval for i in range(count)]
            case "random":
                order = torch.randperm(room, generator=draw)[:count]
                active = sorted(first + int(i) for i in order)
        return self._plan_of(weights, [i for i in active if i < steps] or [steps - 1])

    @staticmethod
    def _checked_list(steps_list: tuple[int, ...], steps: int) -> list[int]:
        chosen = sorted(steps_list)
        if not chosen or len(set(chosen)) != len(chosen) or chosen[-1] >= steps:
            raise TuningError(
                f"method.steps_list is {list(steps_list)}; needed are distinct steps of 0 ... "
                f"{steps - 1}, one at least (with sampling.steps = {steps})"
            )
        return chosen

    def _plan_of(self, weights: tuple[float, ...], active: list[int]) -> Plan:
        return Plan(
            steps=len(weights),
            stop=len(weights),
            reward_input="end",
            active=tuple(active),
            weights=weights,
            nested=0.0 if self.stop_input_gradient else 1.0,
            through=tuple(active),
        )

"""The strategies of EasyAnimate's published reward script, for those who move over.

`--backprop_strategy last | tail | uniform | random` with its other flags, gradient for gradient: no
rescale, the short last step counted, a step between two chosen ones a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.plan import Plan, chain_weights

Strategy = Literal["last", "tail", "uniform", "random"]


def easyanimate(
    generator: torch.Generator,
    sigmas: Tensor,
    *,
    strategy: Strategy = "tail",
    active_steps: int = 10,
    first_step: int = 0,
    last_step: int | None = None,
    stop_input_gradient: bool = False,
    steps_list: Sequence[int] | None = None,
) -> Plan:
    """Plan of the published script's loop; the reward on the true end.

    - `last`: step N - 1 alone. Its |d| is 0.0027 on V5.1's table: next to no gradient.
    - `tail`: the last K.
    - `uniform`: K steps N // K apart, from a start drawn from 0 ... N // K, both ends included.
    - `random`: K distinct steps of `first_step` ... `last_step`.

    As in the script, `uniform` may draw one step past the end, which then is never run: K - 1
    remain. Where none would (K = 1), the last step is taken; the script trains nothing there.

    Args:
        generator: CPU generator.
        sigmas: `(N + 1,)`, falling from 1 to 0.
        strategy: `--backprop_strategy`.
        active_steps: K, `--backprop_num_steps`; `last` ignores it, as the script does.
        first_step: `--backprop_random_start_step`.
        last_step: `--backprop_random_end_step`, included; None is N - 1. (The script's default, 50,
            lies one past the end of its 50 steps.)
        stop_input_gradient: `--stop_latent_model_input_gradient`.
        steps_list: `--backprop_step_list`: these steps, every time, whatever the strategy and its
            keys; distinct, in any order. The script lets steps past the end pass unseen.

    Raises:
        TuningError: more steps asked for than there are, a range or a step outside 0 ... N - 1, a
            step given twice, or no such strategy.
    """
    weights = chain_weights(sigmas)
    steps = len(weights)
    if steps_list is not None:
        chosen = sorted(steps_list)
        if (
            not chosen
            or len(set(chosen)) != len(chosen)
            or not 0 <= chosen[0] <= chosen[-1] < steps
        ):
            raise TuningError(
                f"method.steps_list is {list(steps_list)}; needed are distinct steps of 0 ... "
                f"{steps - 1}, one at least (with sampling.steps = {steps})"
            )
        return _plan(weights, chosen, stop_input_gradient)
    end = steps - 1 if last_step is None else last_step
    if not 0 <= first_step <= end < steps:
        raise TuningError(
            f"method.first_step and last_step are {first_step} and {end}; allowed is 0 ... "
            f"{steps - 1}, the first not above the last"
        )
    room = end - first_step + 1 if strategy == "random" else steps
    if strategy != "last" and not 1 <= active_steps <= room:
        raise TuningError(f"method.active_steps is {active_steps}; allowed is 1 ... {room}")
    match strategy:
        case "last":
            active = [steps - 1]
        case "tail":
            active = list(range(steps - active_steps, steps))
        case "uniform":
            interval = steps // active_steps
            start = int(torch.randint(0, interval + 1, (), generator=generator))
            active = [start + i * interval for i in range(active_steps)]
        case "random":
            order = torch.randperm(room, generator=generator)[:active_steps]
            active = sorted(first_step + int(i) for i in order)
        case _:
            raise TuningError(
                f"method.strategy is {strategy!r}; allowed are last, tail, uniform, random"
            )
    active = [i for i in active if i < steps] or [steps - 1]
    return _plan(weights, active, stop_input_gradient)


def _plan(weights: tuple[float, ...], active: list[int], stop_input_gradient: bool) -> Plan:
    return Plan(
        steps=len(weights),
        stop=len(weights),
        reward_input="end",
        active=tuple(active),
        weights=weights,
        nested=0.0 if stop_input_gradient else 1.0,
        through=tuple(active),
    )

"""FlowBP-Lagrange: two leaps, each integrated through a few velocities (arXiv 2606.11075)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.leaps import Leap, quadrature_weights, spread_steps
from reward_tuning.gradient.plan import Plan

_NOTHING = 1e-9  # of a leap's length: a weight that is 0 but for rounding


def flowbp_lagrange(
    generator: torch.Generator,
    sigmas: Tensor,
    *,
    order: int = 3,
    active_steps: int = 2,
    second_share: float = 0.25,
    nested: float = 0.1,
    rescale: float = 0.5,
    leap_floor: float | None = 0.2,
    concentration: tuple[float, float, float] | None = (2.5, 6.0, 2.0),
    longest_last_leap: int | None = None,
    tail: float = 1.0,
) -> Plan:
    """Plan of FlowBP-Lagrange: the reward on the true end, gradient through two leaps k -> j -> N.

    As LeapAlign, but a leap takes `order` velocities, spread evenly over it from its first step to
    its last, with the weights of the polynomial through them integrated over the leap. The first
    `active_steps` of them receive gradient, all but the very first `second_share` of theirs; the
    others are constants. Within each leap the active ones are rescaled to the leap's whole weight,
    by `rescale`. `nested` of the gradient flows through the input of v_j, which is multiplied by
    j's rescale, too. In value x_j and the end stay what the rollout found.

    k and j are drawn by cutting the steps into three parts, behind j, between k and j, before k,
    whose lengths follow a Dirichlet distribution.

    The authors' rescale, leap_floor, longest_last_leap and tail: FLUX.1 0.5, 0.2, none, 1, the
    defaults here; SD3.5 0, 0.2, 10, 1; FLUX.2 0, 0.1, none, 0.7. All else is alike in the three.

    Args:
        generator: CPU generator.
        sigmas: `(N + 1,)`, falling from 1 to 0; N at least 3.
        order: velocities a leap is integrated with, at least 1; 1 is LeapAlign's leap.
        active_steps: how many of them receive gradient, 1 ... `order`.
        second_share: factor of the gradient of those that do not begin their leap, in [0, 1].
        nested: alpha, 0 or more.
        rescale: rho of each leap, in [0, 1]; see `Plan`.
        leap_floor: as in `leapalign`, for these leaps; None = all clips alike.
        concentration: of the Dirichlet distribution: behind j, between, before k. None draws every
            pair k < j alike.
        longest_last_leap: most steps from j to the end, at least 2; what j's part is cut by goes
            to the part before k. None = any.
        tail: share of the steps, counted from the end, that k is drawn from, in (0, 1].

    Raises:
        TuningError: a value out of range, or fewer than three steps.
    """
    steps = len(sigmas) - 1
    _check(steps, order, active_steps, second_share, concentration, longest_last_leap, tail)
    room = max(3, math.ceil(steps * tail))
    if concentration is None:
        k, j = _even_pair(generator, steps, room, longest_last_leap)
    else:
        k, j = _dirichlet_pair(generator, steps, room, concentration, longest_last_leap)
    table = [float(s) for s in sigmas]
    leaps = []
    weights = dict.fromkeys(range(steps), 0.0)
    for start, end in ((k, j), (j, steps)):
        points = spread_steps(start, end, order)
        whole = quadrature_weights([table[i] for i in points], table[start], table[end])
        leaps.append(Leap(start, end, points, whole))
        carried = sum(abs(w) for w in whole[:active_steps])
        factor = 1.0
        if carried > 0.0:
            factor += rescale * (sum(abs(w) for w in whole) / carried - 1.0)
        for place, i in enumerate(points[:active_steps]):
            share = factor if place == 0 else factor * second_share
            if abs(whole[place]) > _NOTHING * abs(table[end] - table[start]):
                weights[i] = share * whole[place]
    return Plan(
        steps=steps,
        stop=steps,
        reward_input="end",
        active=tuple(i for i, weight in weights.items() if weight != 0.0),
        weights=tuple(weights.values()),
        nested=nested,
        through=(j,),
        leaps=tuple(leaps),
        leap_floor=leap_floor,
    )


def _dirichlet_pair(
    generator: torch.Generator,
    steps: int,
    room: int,
    concentration: tuple[float, float, float],
    longest_last_leap: int | None,
) -> tuple[int, int]:
    """K and j from three lengths of at least 1 that add up to `room`, rounded as the authors do."""
    # A Dirichlet draw is three gamma draws over their sum.
    gammas = torch._standard_gamma(
        torch.tensor(concentration, dtype=torch.float64), generator=generator
    )
    shares = gammas / gammas.sum()
    lengths = (shares * room).round().long()
    lengths[shares.argmax()] += room - lengths.sum()
    lengths = lengths.clamp(min=1)
    lengths[lengths.argmax()] += room - lengths.sum()
    behind, between, _ = (int(length) for length in lengths)
    if longest_last_leap is not None:
        behind = min(behind, longest_last_leap - 1)  # what is cut off falls to the part before k
    j = steps - 1 - behind
    return j - between, j


def _even_pair(
    generator: torch.Generator, steps: int, room: int, longest_last_leap: int | None
) -> tuple[int, int]:
    """Every pair k < j alike; with a longest last leap every j, then every k before it."""
    if longest_last_leap is None:
        pair = torch.randperm(room, generator=generator)[:2]
        k, j = sorted(steps - room + int(i) for i in pair)
        return k, j
    back = int(torch.randint(1, min(longest_last_leap, room - 1) + 1, (), generator=generator))
    j = steps - back
    return int(torch.randint(steps - room, j, (), generator=generator)), j


def _check(
    steps: int,
    order: int,
    active_steps: int,
    second_share: float,
    concentration: tuple[float, float, float] | None,
    longest_last_leap: int | None,
    tail: float,
) -> None:
    if steps < 3:
        raise TuningError(f"sampling.steps is {steps}; flowbp_lagrange needs 3 or more")
    if not 1 <= active_steps <= order:
        raise TuningError(
            f"method.active_steps is {active_steps}; allowed is 1 ... method.order = {order}"
        )
    if not 0.0 <= second_share <= 1.0:
        raise TuningError(f"method.second_share is {second_share}; allowed is 0 ... 1")
    if concentration is not None and not all(0.0 < c < math.inf for c in concentration):
        raise TuningError(
            f"method.concentration is {list(concentration)}; needed are three numbers above 0, or "
            "null for pairs that are all alike"
        )
    if longest_last_leap is not None and longest_last_leap < 2:
        raise TuningError(
            f"method.longest_last_leap is {longest_last_leap}; allowed is 2 or more, or null"
        )
    if not 0.0 < tail <= 1.0:
        raise TuningError(f"method.tail is {tail}; allowed is above 0 and up to 1")

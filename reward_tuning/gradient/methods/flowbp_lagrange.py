"""FlowBP-Lagrange: two leaps, each integrated through a few velocities (arXiv 2606.11075)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, Strict

from reward_tuning.errors import TuningError
from reward_tuning.gradient.leaps import Leap, quadrature_weights, spread_steps
from reward_tuning.gradient.methods.leapalign import LeapFloor
from reward_tuning.gradient.methods.method import Method, NestedOfOne
from reward_tuning.gradient.plan import Plan
from reward_tuning.section import Positive

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_NEGLIGIBLE = 1e-9
"""Share of a leap's length: a smaller weight is 0 but for rounding, and a plan refuses 0."""


class FlowBPLagrange(Method):
    """FlowBP-Lagrange (arXiv 2606.11075): two leaps, each integrated through a few velocities.

    The authors' rescale, leap_floor, longest_last_leap and tail: FLUX.1 0.5, 0.2, none, 1, the
    defaults here; SD3.5 0, 0.2, 10, 1; FLUX.2 0, 0.1, none, 0.7. All else is alike in the three. An
    `order` of 1 is LeapAlign's leap.
    """

    kind: Literal["flowbp_lagrange"]
    order: Positive = Field(default=3, description="Velocities that a leap is integrated with")
    active_steps: Positive = Field(
        default=2, description="How many of a leap's velocities receive gradient, the first ones"
    )
    second_share: float = Field(
        default=0.25,
        ge=0.0,
        le=1.0,
        description="Gradient factor of the active velocities after a leap's first",
    )
    nested: NestedOfOne = 0.1
    rescale: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="0 = the active velocities of a leap keep their own weights; 1 = they carry "
        "the whole leap's",
    )
    leap_floor: LeapFloor = 0.2
    concentration: Annotated[tuple[float, float, float] | None, Strict(False)] = Field(
        default=(2.5, 6.0, 2.0),
        description="Dirichlet concentration of the steps behind j, between k and j, and before "
        "k; null = every pair k < j equally likely",
    )
    longest_last_leap: int | None = Field(
        default=None, ge=2, description="Most steps from j to the end; null = any number"
    )
    tail: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="Share of the steps, counted from the end, that are trained",
    )

    @property
    def weights_clips(self) -> bool:
        """With a floor."""
        return self.leap_floor is not None

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Draw the plan: two leaps k -> j -> N, the reward on the true end.

        As in LeapAlign, but a leap takes `order` velocities, spread evenly over it from its first
        step to its last, with the weights of the polynomial through them integrated over the leap.
        The first `active_steps` of them receive gradient, all but the very first `second_share` of
        theirs; the others are constants. Within each leap the active ones are rescaled to the
        leap's whole weight, by `rescale`. `nested` of the gradient flows through the input of v_j,
        multiplied by j's rescale too. The values of x_j and the end stay those of the rollout.

        Raises:
            TuningError: Keys that exclude each other, or a table of fewer than three steps.
        """
        steps = len(sigmas) - 1
        self._check(steps)
        room = max(3, math.ceil(steps * self.tail))
        if self.concentration is None:
            k, j = self._even_pair(draw, steps, room)
        else:
            k, j = self._dirichlet_pair(draw, steps, room, self.concentration)
        table = [float(s) for s in sigmas]
        leaps = []
        weights = dict.fromkeys(range(steps), 0.0)
        for start, end in ((k, j), (j, steps)):
            points = spread_steps(start, end, self.order)
            whole = quadrature_weights([table[i] for i in points], table[start], table[end])
            leaps.append(Leap(start, end, points, whole))
            carried = sum(abs(w) for w in whole[: self.active_steps])
            factor = 1.0
            if carried > 0.0:
                factor += self.rescale * (sum(abs(w) for w in whole) / carried - 1.0)
            for place, i in enumerate(points[: self.active_steps]):
                share = factor if place == 0 else factor * self.second_share
                if abs(whole[place]) > _NEGLIGIBLE * abs(table[end] - table[start]):
                    weights[i] = share * whole[place]
        return Plan(
            steps=steps,
            stop=steps,
            reward_input="end",
            active=tuple(i for i, weight in weights.items() if weight != 0.0),
            weights=tuple(weights.values()),
            nested=self.nested,
            through=(j,),
            leaps=tuple(leaps),
            leap_floor=self.leap_floor,
        )

    def _dirichlet_pair(
        self, draw: torch.Generator, steps: int, room: int, concentration: tuple[float, ...]
    ) -> tuple[int, int]:
        """Draw k and j by cutting `room` steps into three parts: behind j, between, before k.

        Each part has at least one step; lengths are rounded as in the authors' code.
        """
        import torch

        # A Dirichlet draw is three gamma draws over their sum.
        gammas = torch._standard_gamma(
            torch.tensor(concentration, dtype=torch.float64), generator=draw
        )
        shares = gammas / gammas.sum()
        lengths = (shares * room).round().long()
        lengths[shares.argmax()] += room - lengths.sum()
        lengths = lengths.clamp(min=1)
        lengths[lengths.argmax()] += room - lengths.sum()
        behind, between, _ = (int(length) for length in lengths)
        if self.longest_last_leap is not None:
            behind = min(behind, self.longest_last_leap - 1)  # the part before k grows instead
        j = steps - 1 - behind
        return j - between, j

    def _even_pair(self, draw: torch.Generator, steps: int, room: int) -> tuple[int, int]:
        """Draw any pair k < j alike; with a longest last leap any j, then any k before it."""
        import torch

        if self.longest_last_leap is None:
            pair = torch.randperm(room, generator=draw)[:2]
            k, j = sorted(steps - room + int(i) for i in pair)
            return k, j
        most = min(self.longest_last_leap, room - 1)
        j = steps - int(torch.randint(1, most + 1, (), generator=draw))
        return int(torch.randint(steps - room, j, (), generator=draw)), j

    def _check(self, steps: int) -> None:
        if steps < 3:
            raise TuningError(f"sampling.steps is {steps}; flowbp_lagrange needs 3 or more")
        if self.active_steps > self.order:
            raise TuningError(
                f"method.active_steps is {self.active_steps}; allowed is 1 ... method.order = "
                f"{self.order}"
            )
        if self.concentration is not None and not all(c > 0.0 for c in self.concentration):
            raise TuningError(
                f"method.concentration is {list(self.concentration)}; needed are three numbers "
                "above 0, or null for pairs that are all alike"
            )

"""The plan of one update: a small frozen value that the gradient engine executes.

Notation: steps i = 0 ... N-1, sigmas s_0 = 1 > ... > s_N = 0, d_i = s_{i+1} - s_i < 0,
x_{i+1} = x_i + d_i v_i. Every direct-gradient method (ReFL, DRaFT and its kin, AlignProp,
DRTune, LeapAlign, Direct-Align and the FlowBP family, arXiv 2606.11075) is a choice of the fields
of `Plan`; `reward_tuning/gradient/methods` makes those choices and
`reward_tuning/gradient/engine.py` executes them.
"""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from reward_tuning.errors import TuningError
from reward_tuning.gradient.leaps import Leap

if TYPE_CHECKING:  # recipes are read without torch, and methods import this module
    from torch import Tensor

RewardInput = Literal["end", "posterior_mean", "state"]


@dataclass(frozen=True)
class Renoised:
    """A fresh look at the end: noise it again, and denoise it by one velocity.

    x = (1 - s) x_N + s e,  x̂ = (x + (s' - s) v(x, s) - s' e) / (1 - s'),  s' < s

    At s' = 0 that is the posterior mean x - s v (DRaFT-LV); above 0 the noise that is left is
    known and subtracted (Direct-Align). Only v carries gradient.

    Attributes:
        sigma: s in (0, 1].
        sigma_to: s' in [0, s).
        own_noise: e is the clip's own x_0; otherwise it is new noise.
        share: Factor of the loss, in (0, 1].

    Raises:
        TuningError: A value out of range.
    """

    sigma: float
    sigma_to: float = 0.0
    own_noise: bool = False
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.sigma_to < self.sigma <= 1.0:
            raise TuningError(
                f"plan: noised again to {self.sigma}, denoised to {self.sigma_to}; needed is "
                "0 <= sigma_to < sigma <= 1"
            )
        if not 0.0 < self.share <= 1.0:
            raise TuningError(f"plan: share is {self.share}; allowed is above 0 and up to 1")

    @property
    def weight(self) -> float:
        """D x̂ / d v = (s' - s) / (1 - s')."""
        return (self.sigma_to - self.sigma) / (1.0 - self.sigma_to)


@dataclass(frozen=True)
class Plan:
    """The reward input of an update, and the steps that receive its gradient.

    Attributes:
        steps: N, the number of steps of the sampler's table.
        stop: Index s of the state the rollout ends at; N is the true end.
        reward_input: `end` reads x_N; `posterior_mean` reads x_s - s_s v_s at an early stop s < N;
            `state` reads x_s itself, 0 < s < N, for a judge of noisy latents.
        active: Steps whose velocity passes gradient to the parameters, ascending. Empty only if
            all gradient comes from fresh looks (`renoised`), or none from the reward (`matched`).
        weights: d(reward input)/d v_i for every step the reward input depends on: d_i for i < s
            and, for the posterior mean, -s_s for i = s. Signed; `chain_weights` computes them. A
            method that leaps over steps has weights of its own, 0 at the steps it skips.
        nested: Share of the gradient that flows through a velocity's input: 1 is the full adjoint
            (DRaFT-K, AlignProp), 0 stops it (DRTune, ReFL), between damps it (LeapAlign, Bridge).
            It refers to the velocity that the sweep differentiates; see `over_guidance`.
        rescale: rho in [0, 1]; 0 leaves the plain gradient, 1 multiplies it so that the active
            steps carry the whole chain's weight (algorithm: FlowBP's gradient rescale).
        through: Steps whose input lets the nested gradient through. None is every executed
            step from the first active one on: the exact derivative with respect to the active
            steps' parameters, at one re-run a step. With `active` itself the velocity of a step
            that is not active is a constant, as in EasyAnimate's published reward script. Without
            effect at nested = 0.
        leaps: Leaps to the reward input, of methods that do not follow the chain step by step.
        leap_floor: Floor of `leaps.leap_likeness`, which then multiplies each clip's loss; None
            multiplies nothing.
        renoised: Fresh looks at the end, each weighted like the chain itself.
        whole: Weight that the rescale gives the active steps; None = the sum of all |w|.
        matched: Noise levels at which the end is matched (`reward_tuning.tuning.matching`), which
            takes the place of a sweep; 0 where the sweep trains.
        regression: Strength with which active steps are regressed onto the base's velocity and the
            adjoint (`reward_tuning.gradient.methods.adjoint_matching`); None for the plain
            gradient.

    Raises:
        TuningError: A value out of range.
    """

    steps: int
    stop: int
    reward_input: RewardInput
    active: tuple[int, ...]
    weights: tuple[float, ...]
    nested: float = 0.0
    rescale: float = 0.0
    through: tuple[int, ...] | None = None
    leaps: tuple[Leap, ...] = ()
    leap_floor: float | None = None
    renoised: tuple[Renoised, ...] = ()
    whole: float | None = None
    matched: int = 0
    regression: float | None = None

    def __post_init__(self) -> None:
        _check_stop(self.steps, self.stop, self.reward_input)
        executed = executed_steps(self.stop, self.reward_input)
        if len(self.weights) != executed:
            raise TuningError(
                f"plan: {len(self.weights)} weights for {executed} executed steps; give one for "
                "each step the reward input depends on (chain_weights computes them)"
            )
        if not self.active and not self.renoised and not self.matched:
            raise TuningError("plan: no active steps and no fresh look at the end; one is needed")
        for name in ("active", "through"):
            indices = getattr(self, name) or ()
            if list(indices) != sorted(set(indices)):
                raise TuningError(
                    f"plan: {name} steps {list(indices)}; they must be distinct and ascending"
                )
            if indices and not 0 <= indices[0] <= indices[-1] < executed:
                raise TuningError(
                    f"plan: {name} steps {list(indices)} lie outside the executed steps "
                    f"0 ... {executed - 1}; a step after the stop cannot receive gradient"
                )
        if self.renoised and self.reward_input != "end":
            raise TuningError("plan: a fresh look is one at the end, so the end must be reached")
        if self.leap_floor is not None and (self.leap_floor <= 0.0 or not self.leaps):
            raise TuningError(
                f"plan: leap_floor is {self.leap_floor} with {len(self.leaps)} leaps; needed is a "
                "floor above 0 and at least one leap"
            )
        if not all(self.weights[i] != 0.0 for i in self.active):
            raise TuningError("plan: an active step has weight 0; take it out of the active steps")
        if not 0.0 <= self.nested < math.inf:
            raise TuningError(f"plan: nested is {self.nested}; allowed is 0 or more")
        if not 0.0 <= self.rescale <= 1.0:
            raise TuningError(f"plan: rescale is {self.rescale}; allowed is 0 ... 1")

    @property
    def reads_end(self) -> bool:
        """True if the rollout reaches the true end and the gradient begins only there."""
        return self.reward_input == "end" and not self.renoised and not self.matched

    @property
    def gradient_scale(self) -> float:
        """Return 1 + rho (W / sum over active steps |w| - 1), W the sum of all |w| or `whole`."""
        whole = self.whole or sum(abs(w) for w in self.weights)
        carried = sum(abs(self.weights[i]) for i in self.active)
        if carried == 0.0:
            return 1.0
        return 1.0 + self.rescale * (whole / carried - 1.0)

    def over_guidance(self, gain: float) -> Plan:
        """Return the plan for a velocity whose negative branch has no gradient: nested / gain.

        v = v_neg + g (v_pos - v_neg) has the state Jacobian g J_pos - (g - 1) J_neg, about as long
        as J_pos, because the branches differ little. With v_neg detached autograd computes g J_pos.
        The gradient of the parameters is divided by g once (`losses.guidance_gain`), but every step
        that the adjoint crosses would multiply it by g again.

        Args:
            gain: g; 1 where the velocity's own Jacobian is the true one.
        """
        return self if gain == 1.0 else replace(self, nested=self.nested / gain)

    def look(self, renoised: Renoised) -> Plan:
        """Return the plan of a fresh look's gradient: one active step, its input detached.

        A whole chain's weights sum to 1; the rescale brings the look's one weight there.
        """
        return Plan(
            steps=1,
            stop=0,
            reward_input="posterior_mean",
            active=(0,),
            weights=(renoised.weight,),
            rescale=self.rescale,
            whole=1.0,
        )

    @property
    def visited(self) -> tuple[int, ...]:
        """List the steps that the sweep runs again, last to first: active and crossed ones."""
        if not self.active:
            return ()
        return tuple(
            i
            for i in reversed(range(self.active[0], len(self.weights)))
            if i in self.active or self.flows_through(i)
        )

    def flows_through(self, i: int) -> bool:
        """Return whether the nested gradient flows on through the input of step i.

        It never flows through the first active step: no earlier step needs it.
        """
        return (
            self.nested > 0.0
            and i > self.active[0]
            and self.weights[i] != 0.0
            and (self.through is None or i in self.through)
        )


def executed_steps(stop: int, reward_input: RewardInput) -> int:
    """Count the velocities that the reward input depends on: s, one more for the posterior mean."""
    return stop + 1 if reward_input == "posterior_mean" else stop


def chain_weights(
    sigmas: Tensor, stop: int | None = None, reward_input: RewardInput = "end"
) -> tuple[float, ...]:
    """Return d(reward input)/d v_i of the Euler chain, at fixed states.

    Args:
        sigmas: `(N + 1,)` floating, strictly falling from 1 to 0.
        stop: index s where the rollout ends; None is N.
        reward_input: `end` (s = N), `posterior_mean` (s < N) or `state` (0 < s < N).

    Returns:
        d_i for i < s, then -s_s for the posterior mean. Their absolute values sum to s_0, or to
        s_0 - s_s for a state.

    Raises:
        TuningError: The table does not fall to 0, or the stop is out of range.
    """
    table = [float(s) for s in sigmas.flatten()]
    if sigmas.dim() != 1 or len(table) < 2:
        raise TuningError(
            f"sigmas have shape {tuple(sigmas.shape)}; needed is (steps + 1,) with steps >= 1"
        )
    if table[-1] != 0.0 or any(b >= a for a, b in itertools.pairwise(table)):
        raise TuningError(f"sigmas must fall strictly to 0 at the end; got {table}")
    steps = len(table) - 1
    stop = steps if stop is None else stop
    _check_stop(steps, stop, reward_input)
    weights = [float(sigmas[i + 1] - sigmas[i]) for i in range(stop)]
    if reward_input == "posterior_mean":
        weights.append(-table[stop])
    return tuple(weights)


def steps_that_matter(weights: tuple[float, ...], smallest_step: float) -> tuple[int, ...]:
    """Return the steps with |w_i| >= `smallest_step` times the median |w|.

    The mu = 1 table of V5.1 ends with |d| = 0.0027 for every N, a fortieth of the step before it:
    trained alone it gives no usable gradient. 0 keeps every step.
    """
    if not 0.0 <= smallest_step <= 1.0:
        raise TuningError(f"method.smallest_step is {smallest_step}; allowed is 0 ... 1")
    bar = smallest_step * statistics.median(abs(w) for w in weights)
    return tuple(i for i, w in enumerate(weights) if abs(w) >= bar)


def steps_to_choose_from(
    weights: tuple[float, ...], active_steps: int, smallest_step: float
) -> tuple[int, ...]:
    """Return `steps_that_matter`, after checking that `active_steps` of them can be chosen.

    Raises:
        TuningError: `active_steps` is below 1 or above their number.
    """
    candidates = steps_that_matter(weights, smallest_step)
    if not 1 <= active_steps <= len(candidates):
        raise TuningError(
            f"method.active_steps is {active_steps}; with {len(weights)} sampling steps allowed is "
            f"1 ... {len(candidates)} (steps shorter than {smallest_step:g} of the median are not "
            "counted: method.smallest_step)"
        )
    return candidates


def _check_stop(steps: int, stop: int, reward_input: RewardInput) -> None:
    if steps < 1:
        raise TuningError(f"plan: {steps} sampling steps; at least 1 is needed")
    if reward_input == "end":
        if stop != steps:
            raise TuningError(
                f"plan: the reward reads the end but the rollout stops at {stop} of {steps}; "
                "stop at the end or read the posterior mean"
            )
    elif reward_input == "posterior_mean":
        if not 0 <= stop < steps:
            raise TuningError(
                f"plan: the posterior mean needs an early stop in 0 ... {steps - 1}; got {stop}"
            )
    elif reward_input == "state":
        if not 0 < stop < steps:
            raise TuningError(
                f"plan: a noisy state lies after step 1 ... {steps - 1} of {steps}; got {stop}"
            )
    else:
        raise TuningError(
            f"plan: reward_input is {reward_input!r}; allowed are end, posterior_mean, state"
        )

"""What one update differentiates: a small frozen value that the gradient engine carries out.

Notation: steps i = 0 ... N-1, sigmas s_0 = 1 > ... > s_N = 0, d_i = s_{i+1} - s_i < 0,
x_{i+1} = x_i + d_i v_i. Every direct-gradient method (ReFL, DRaFT-K, AlignProp, DRTune and the
FlowBP family, arXiv 2606.11075) is a choice of the fields of `Plan`; `reward_tuning/methods` makes
those choices and `reward_tuning/engine.py` carries them out.
"""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from reward_tuning.errors import TuningError

RewardInput = Literal["end", "posterior_mean"]
Inactive = Literal["pass", "detach"]


@dataclass(frozen=True)
class Plan:
    """Where the reward is read and which steps receive its gradient.

    Attributes:
        steps: N, the number of steps of the sampler's table.
        stop: index s of the state the rollout ends at; N is the true end.
        reward_input: `end` reads x_N; `posterior_mean` reads x_s - s_s v_s at an early stop s < N.
        active: the steps whose velocity gives gradient to the parameters, ascending.
        weights: d(reward input)/d v_i for every step the reward input depends on: d_i for i < s
            and, for the posterior mean, -s_s for i = s. Signed; `chain_weights` computes them.
        nested: how much of the gradient flows on through a velocity's input: 1 is the full adjoint
            (DRaFT-K, AlignProp), 0 stops it (DRTune, ReFL), between damps it (LeapAlign, Bridge).
        rescale: rho in [0, 1]; 0 leaves the plain gradient, 1 multiplies it so that the active
            steps carry the whole chain's weight (algorithm: FlowBP's gradient rescale).
        inactive: what an inactive step between two active ones does to a nested gradient. `pass`
            multiplies by its Jacobian (the exact derivative with respect to the active steps'
            parameters, at one re-run a step); `detach` treats its velocity as a constant, as
            EasyAnimate's published reward script does, at no cost. Without effect at nested = 0.

    Raises:
        TuningError: a value out of range; the text names it.
    """

    steps: int
    stop: int
    reward_input: RewardInput
    active: tuple[int, ...]
    weights: tuple[float, ...]
    nested: float = 0.0
    rescale: float = 0.0
    inactive: Inactive = "pass"

    def __post_init__(self) -> None:
        _check_stop(self.steps, self.stop, self.reward_input)
        executed = executed_steps(self.stop, self.reward_input)
        if len(self.weights) != executed:
            raise TuningError(
                f"plan: {len(self.weights)} weights for {executed} executed steps; give one for "
                "each step the reward input depends on (chain_weights computes them)"
            )
        if not self.active or list(self.active) != sorted(set(self.active)):
            raise TuningError(
                f"plan: active steps {list(self.active)}; they must be distinct, ascending and at "
                "least one"
            )
        if self.active[0] < 0 or self.active[-1] >= executed:
            raise TuningError(
                f"plan: active steps {list(self.active)} lie outside the executed steps "
                f"0 ... {executed - 1}; a step after the stop cannot receive gradient"
            )
        if not all(self.weights[i] != 0.0 for i in self.active):
            raise TuningError("plan: an active step has weight 0; take it out of the active steps")
        for name in ("nested", "rescale"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise TuningError(f"plan: {name} is {value}; allowed is 0 ... 1")
        if self.inactive not in ("pass", "detach"):
            raise TuningError(f"plan: inactive is {self.inactive!r}; allowed are pass, detach")

    @property
    def gradient_scale(self) -> float:
        """1 + rho (sum over all steps |w| / sum over active steps |w| - 1)."""
        whole = sum(abs(w) for w in self.weights)
        carried = sum(abs(self.weights[i]) for i in self.active)
        return 1.0 + self.rescale * (whole / carried - 1.0)

    @property
    def visited(self) -> tuple[int, ...]:
        """The steps the sweep runs again, in its order: last to first.

        At nested = 0, or with inactive steps detached, only the active ones. Otherwise every step
        from the reward input down to the first active one; what lies before is never touched.
        """
        if self.nested == 0.0 or self.inactive == "detach":
            return tuple(reversed(self.active))
        return tuple(range(len(self.weights) - 1, self.active[0] - 1, -1))


def executed_steps(stop: int, reward_input: RewardInput) -> int:
    """Number of velocities the reward input depends on: s, and one more for the posterior mean."""
    return stop if reward_input == "end" else stop + 1


def chain_weights(
    sigmas: Tensor, stop: int | None = None, reward_input: RewardInput = "end"
) -> tuple[float, ...]:
    """d(reward input)/d v_i of the Euler chain, at fixed states.

    Args:
        sigmas: `(N + 1,)` floating, strictly falling from 1 to 0.
        stop: index s where the rollout ends; None is N.
        reward_input: `end` (s = N) or `posterior_mean` (s < N).

    Returns:
        d_i for i < s, then -s_s if the posterior mean is read. Their absolute values sum to s_0.

    Raises:
        TuningError: not a falling table that ends at 0, or a stop out of range.
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
    """The steps with |w_i| >= `smallest_step` times the median |w|.

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
    """`steps_that_matter`, once it is sure that `active_steps` of them can be chosen.

    Raises:
        TuningError: fewer than one asked for, or more than there are.
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
    else:
        raise TuningError(
            f"plan: reward_input is {reward_input!r}; allowed are end, posterior_mean"
        )

"""The gradient engine: rollout, reward input, adjoint sweep.

Pure functions on tensors, called in that order, with `losses.reward_gradient` before the sweep. No
two phases hold a graph at the same time, except for the steps that keep theirs from the rollout
(`kept.KeptGraphs`). The sweep re-runs the others one at a time, so its peak memory is that of one
denoiser step, however many are active. With nested = 1 the result equals autograd
through the whole chain to rounding (`tests/reward_tuning/gradient/test_engine.py`).

The engine knows no model, no adapter and no recipe: it only calls `velocity(x, i)`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.kept import KeptGraphs, VelocityFn
from reward_tuning.gradient.plan import Plan, Renoised
from reward_tuning.gradient.readings import read_together

ManyStepsFn = Callable[[Sequence[Tensor], Sequence[int]], list[Tensor]]
"""`([x_i, ...], [i, ...]) -> [v_i, ...]`: the velocities of several steps from one model call."""

StepLossFn = Callable[[int, Tensor, Tensor], Tensor]
"""`(i, x_i, v_i) -> scalar`: a regulariser of one active step, added to its backward."""


@dataclass(frozen=True)
class StepReport:
    """Measurements of one step of the sweep.

    Attributes:
        step: Its index i.
        active: Whether its parameters received gradient.
        weight: |w_i|, the size of d(reward input)/d v_i.
        adjoint_norm: ||g|| that reached the step's output, before the weight and the rescale.
        gradient_norm: Norm of this step's own contribution to `parameters`; None if they were not
            given, the step is not active, or the same call swept other steps.
        step_loss: Value of the step's regulariser; 0 without one.
        rerun_error: ||x_i + d_i v_i - x_{i+1}|| / ||d_i v_i||, the relative distance of the re-run
            from the rollout; 0 at a posterior-mean step, which has no next state, and where the
            rollout's own graph was kept.
    """

    step: int
    active: bool
    weight: float
    adjoint_norm: float
    gradient_norm: float | None
    step_loss: float
    rerun_error: float


@dataclass(frozen=True)
class SweepReport:
    """The steps in the order of the sweep (last to first), and the factor S it applied."""

    steps: tuple[StepReport, ...]
    gradient_scale: float

    @property
    def adjoint_growth(self) -> float:
        """Return the largest adjoint norm over the first; far above 1 means an exploding chain."""
        first = self.steps[0].adjoint_norm
        largest = max(s.adjoint_norm for s in self.steps)
        return largest / first if first > 0 else float(largest > 0)

    @property
    def step_loss(self) -> float:
        """Return the sum of the regularisers of the active steps."""
        return sum(s.step_loss for s in self.steps)


@dataclass(frozen=True)
class SweepOptions:
    """Limits of a sweep, and how many steps one call of it runs.

    Attributes:
        adjoint_limit: c >= 1; shortens the gradient that flows through a state, clip by clip, to c
            times the length that its adjoint began with. Holds an exploding chain; None = exact.
        step_norm: Norm that each active step's contribution to the parameters is scaled to (a
            contribution of 0 stays 0), so that no step drowns the others. None = unscaled.
        at_once: Active steps that one call of `many` sweeps, where no gradient flows through their
            states. Takes the memory of that many steps; the gradient is the same to rounding.
        many: The velocity of several steps in one call; None sweeps one step at a time.
        local_step_loss: Keep the gradient of a step loss to its own step, whatever flows through
            the states; costs one more backward pass to each such state.
        rerun_tolerance: Largest allowed `StepReport.rerun_error`. Dropout or another adapter scale
            exceeds 0.1; rounding does not.
    """

    adjoint_limit: float | None = None
    step_norm: float | None = None
    at_once: int = 1
    many: ManyStepsFn | None = None
    rerun_tolerance: float = 0.1
    local_step_loss: bool = False


@torch.no_grad()
def rollout(velocity: VelocityFn, noise: Tensor, sigmas: Tensor, stop: int) -> list[Tensor]:
    """Run the Euler sampler to step `stop` and keep every visited state; no gradient.

    Args:
        velocity: Guided velocity at (x_i, i).
        noise: x_0, `(b, ...)`, float32 or float64. bf16 states lose the small steps.
        sigmas: `(N + 1,)`, falling from 1 to 0.
        stop: Number of steps to take, 0 ... N.

    Returns:
        x_0 ... x_stop, each like `noise`.

    Raises:
        TuningError: A half-precision state, or a stop out of range.
    """
    if noise.dtype not in (torch.float32, torch.float64):
        raise TuningError(
            f"the sampler's state is {noise.dtype}; keep it in float32 (the model may be smaller)"
        )
    if not 0 <= stop < len(sigmas):
        raise TuningError(f"rollout: stop is {stop}; allowed is 0 ... {len(sigmas) - 1}")
    states = [noise.detach()]
    for i in range(stop):
        x = states[-1]
        d = float(sigmas[i + 1] - sigmas[i])
        states.append(x + d * velocity(x, i).to(x.dtype))
    return states


@torch.no_grad()
def read_reward_input(velocity: VelocityFn, states: list[Tensor], plan: Plan) -> Tensor:
    """Return the reward input: x_N, a noisy x_s, or the posterior mean x_s - s_s v_s.

    The posterior mean costs one more velocity. No gradient; shape and dtype of the states.
    """
    _check_states(states, plan)
    x = states[plan.stop]
    if plan.reward_input != "posterior_mean":
        return x
    return x + plan.weights[plan.stop] * velocity(x, plan.stop).to(x.dtype)


@torch.no_grad()
def read_renoised(
    velocity: VelocityFn, states: list[Tensor], noise: Tensor, renoised: Renoised
) -> tuple[Tensor, Tensor]:
    """Noise the end again and denoise it by one velocity; no gradient.

    Args:
        velocity: The velocity at `renoised.sigma`; called once, as step 0.
        states: States of the rollout, to the end.
        noise: e, like a state; ignored if the clip's own noise is reused.
        renoised: The noise levels.

    Returns:
        The noised state, and the reward input x̂. The gradient of x̂ is that of
        `plan.look(renoised)` on this state alone.
    """
    noise = states[0] if renoised.own_noise else noise
    to = renoised.sigma_to
    x = (1.0 - renoised.sigma) * states[-1] + renoised.sigma * noise
    v = velocity(x, 0).to(x.dtype)
    return x, (x - to * noise) / (1.0 - to) + renoised.weight * v


def adjoint_sweep(
    velocity: VelocityFn,
    states: list[Tensor],
    sigmas: Tensor,
    plan: Plan,
    g: Tensor,
    *,
    step_loss: StepLossFn | None = None,
    parameters: Iterable[Tensor] = (),
    options: SweepOptions = SweepOptions(),  # frozen
    kept: KeptGraphs | None = None,
) -> SweepReport:
    r"""Accumulate the gradient of the active steps' parameters, one step's graph at a time.

    With w_i the plan's weights, S its gradient scale and a its `nested`, from the last step to the
    first: active steps backpropagate `S w_i <g, v_i> + step_loss`, and g <- g + a w_i J_i^T g with
    J_i = dv_i/dx_i. The posterior mean needs no case of its own: its step s has weight -s_s.

    A step loss is not multiplied by S; with nested > 0 its gradient flows on through the states
    like the reward's (divided by S here, multiplied again below), so that nested = 1 gives exactly
    the gradient of `S * loss + sum of step losses`, and nested = 0 keeps it local to its step, as
    `SweepOptions.local_step_loss` does.

    9 parameters: the rollout and its graphs, the plan, the gradient, and what joins its backward
    pass.

    Args:
        velocity: The function of the rollout; its re-run must be deterministic (dropout 0).
        states: States of the rollout, x_0 ... x_stop.
        sigmas: The rollout's table, `(N + 1,)`.
        plan: The steps and their weights.
        g: d(loss)/d(reward input), shape of a state.
        step_loss: Optional regulariser (index, x_i, v_i) -> scalar on active steps, such as
            beta |v_i - base velocity|^2; it uses the same re-run.
        parameters: Trainable tensors whose gradient norm is reported step by step. Costs one copy
            of their gradients; the accumulated result is the same bit for bit.
        options: Limits, and how many steps one call runs.
        kept: Graphs of this rollout; those steps are not run again. Each is freed by its backward
            pass unless another plan needs it.

    Returns:
        A report of each visited step. Gradients are added to `.grad` of the velocity's leaves.

    Raises:
        TuningError: Shapes that do not match, a velocity without gradient, or a re-run that
            differs from the rollout.
    """
    _check_states(states, plan)
    _check_gradient_of_input(g, states)
    parameters = list(parameters)
    adjoint_limit, step_norm = options.adjoint_limit, options.step_norm
    _check_options(options, parameters)
    scale = plan.gradient_scale
    g = g.detach()
    longest = None if adjoint_limit is None else adjoint_limit * _lengths(g)
    reports: list[StepReport] = []
    numbers: list[Tensor | float] = []  # of the reports; read at the end, so that nothing waits
    # Last step first: g at a step is known once the steps after it are done.
    graphs = frozenset[int]() if kept is None else kept.steps
    for group in _groups(plan, 1 if options.many is None else options.at_once, graphs):
        is_active = group[0] in plan.active
        flows_on = plan.flows_through(group[0])
        alone = len(group) == 1
        held = kept.take(group[0]) if kept is not None and group[0] in graphs else None
        retained = held is not None and not held.last
        with torch.enable_grad():
            if held is not None:
                xs, vs, rerun_errors = [held.x], [held.v.to(g.dtype)], [0.0]
                _check_gradient(vs[0], group[0])
            else:
                xs = [states[i].detach().requires_grad_(flows_on) for i in group]
                vs, rerun_errors = _rerun(velocity, states, sigmas, xs, group, options)
            product = sum((plan.weights[i] * g * v).sum() for i, v in zip(group, vs, strict=True))
            assert isinstance(product, Tensor)
            regularisers = []
            local = is_active and flows_on and step_loss is not None and options.local_step_loss
            if local or not is_active:  # only g changes
                (x_grad,) = torch.autograd.grad(product, xs[0], retain_graph=retained or local)
            if is_active:
                scalar = scale * product
                if step_loss is not None:
                    regularisers = [
                        step_loss(i, x, v) for i, x, v in zip(group, xs, vs, strict=True)
                    ]
                    scalar = scalar + sum(regularisers)
        norm: Tensor | None = None
        if is_active:
            watched = parameters if alone else []
            norm = _backward(scalar, watched, step_norm, retained=retained)
        for place, i in enumerate(group):
            reports.append(
                StepReport(
                    step=i,
                    active=is_active,
                    weight=abs(plan.weights[i]),
                    adjoint_norm=0.0,
                    gradient_norm=None if norm is None else 0.0,
                    step_loss=0.0,
                    rerun_error=rerun_errors[place],
                )
            )
            numbers += [g.norm(), 0.0 if norm is None else norm]
            numbers.append(regularisers[place].detach() if regularisers else 0.0)
        if flows_on:
            (x,) = xs
            if is_active and not local:
                assert x.grad is not None
                x_grad = x.grad / scale  # of the scalar, which carries S; g itself does not
            g = g + plan.nested * x_grad
            if longest is not None:
                g = g * (longest / _lengths(g)).clamp(max=1.0).nan_to_num(1.0)  # 0 / 0: stays 0
    return SweepReport(steps=_with_numbers(reports, numbers), gradient_scale=scale)


def _with_numbers(
    reports: Sequence[StepReport], numbers: Sequence[Tensor | float]
) -> tuple[StepReport, ...]:
    """Put in the numbers of each report: adjoint norm, gradient norm and step loss."""
    values = iter(read_together(numbers))
    found = []
    for report in reports:
        adjoint, norm, loss = next(values), next(values), next(values)
        own = None if report.gradient_norm is None else norm
        found.append(replace(report, adjoint_norm=adjoint, gradient_norm=own, step_loss=loss))
    return tuple(found)


def _check_gradient_of_input(g: Tensor, states: list[Tensor]) -> None:
    if g.shape != states[0].shape:
        raise TuningError(
            f"the reward gradient has shape {tuple(g.shape)}, the states {tuple(states[0].shape)}; "
            "differentiate with respect to what read_reward_input returned"
        )


def _check_options(options: SweepOptions, parameters: list[Tensor]) -> None:
    adjoint_limit = options.adjoint_limit
    if adjoint_limit is not None and not adjoint_limit >= 1.0:
        raise TuningError(f"the adjoint's limit is {adjoint_limit}; allowed is 1 or more")
    if options.step_norm is not None and (not parameters or options.at_once > 1):
        raise TuningError(
            "to give every step one norm, the sweep must be given the parameters and sweep the "
            "steps one at a time"
        )


def _rerun(
    velocity: VelocityFn,
    states: list[Tensor],
    sigmas: Tensor,
    xs: list[Tensor],
    group: list[int],
    options: SweepOptions,
) -> tuple[list[Tensor], list[float]]:
    """Return the velocities of some steps, with gradient, and their distances from the rollout."""
    many = options.many
    vs = [velocity(xs[0], group[0])] if len(group) == 1 or many is None else many(xs, group)
    vs = [v.to(x.dtype) for x, v in zip(xs, vs, strict=True)]
    for i, v in zip(group, vs, strict=True):
        _check_gradient(v, i)
    tolerance = options.rerun_tolerance
    return vs, [
        _checked_rerun(states, sigmas, i, v, tolerance) for i, v in zip(group, vs, strict=True)
    ]


def _groups(plan: Plan, at_once: int, kept: Collection[int]) -> list[list[int]]:
    """Return the steps of each call of the sweep: one, or several independent neighbours."""
    groups: list[list[int]] = []
    room = 0
    for i in plan.visited:
        independent = i in plan.active and not plan.flows_through(i) and i not in kept
        if independent and room > 0:
            groups[-1].append(i)
            room -= 1
        else:
            groups.append([i])
            room = at_once - 1 if independent else 0
    return groups


def _lengths(x: Tensor) -> Tensor:
    """Return the Euclidean length of each clip, `(b, 1, ...)`."""
    return x.flatten(1).norm(dim=1).view(-1, *[1] * (x.dim() - 1))


def _backward(
    scalar: Tensor, parameters: list[Tensor], wanted: float | None, *, retained: bool
) -> Tensor | None:
    """Backpropagate; with `parameters`, return the norm of this call's own contribution.

    With a `wanted` norm, the contribution is scaled to it before it is added. A `retained` graph
    can be used again.
    """
    if not parameters:
        scalar.backward(retain_graph=retained)
        return None
    before = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    scalar.backward(retain_graph=retained)
    norms = [p.grad.norm() for p in parameters if p.grad is not None]
    norm = torch.stack(norms).norm() if norms else scalar.new_zeros(())
    if wanted is not None and float(norm) > 0.0:
        for p in parameters:
            if p.grad is not None:
                p.grad.mul_(wanted / float(norm))
    for p, old in zip(parameters, before):  # noqa: B905
        if old is not None:
            p.grad = old if p.grad is None else old.add_(p.grad)
    return norm


def _check_gradient(v: Tensor, i: int) -> None:
    if not v.requires_grad:
        raise TuningError(
            f"the velocity of step {i} carries no gradient; attach an adapter and leave "
            "its parameters trainable while the sweep runs"
        )


def _checked_rerun(
    states: list[Tensor], sigmas: Tensor, i: int, v: Tensor, tolerance: float
) -> float:
    """Return the distance of a step's re-run from the rollout; raise if it is too large."""
    if i + 1 >= len(states):
        return 0.0
    moved = float(sigmas[i + 1] - sigmas[i]) * v.detach()
    length, gap = moved.norm(), (states[i] + moved - states[i + 1]).norm()
    error = float(gap / length.clamp_min(torch.finfo(length.dtype).tiny))
    # A NaN is not a wrong re-run: the caller skips the step and counts it.
    if not error <= tolerance and bool(v.isfinite().all()):
        raise TuningError(
            f"the re-run of step {i} differs from the rollout by {error:.2g} of its "
            f"length (allowed {tolerance:.2g}), so its gradient would be wrong; set "
            "dropout to 0 and keep guidance and adapter scale as in the rollout"
        )
    return error


def _check_states(states: list[Tensor], plan: Plan) -> None:
    if len(states) != plan.stop + 1:
        raise TuningError(
            f"{len(states)} states for a plan that stops at {plan.stop}; roll out with stop="
            f"{plan.stop} (states x_0 ... x_{plan.stop})"
        )

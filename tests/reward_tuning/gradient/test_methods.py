"""The methods as plans: which steps, which reward input, over many draws."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
import torch

from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.engine import adjoint_sweep, read_reward_input, rollout
from reward_tuning.gradient.losses import reward_gradient
from reward_tuning.gradient.methods import METHODS, make_plan
from reward_tuning.gradient.plan import Plan, chain_weights
from tests.reward_tuning.toy_flow import ToyFlow, chain_gradients, relative_error, toy_loss

alignprop = partial(make_plan, "alignprop")
draft = partial(make_plan, "draft")
draft_k = partial(make_plan, "draft_k")
drtune = partial(make_plan, "drtune")
easyanimate = partial(make_plan, "easyanimate")
flowbp_bridge = partial(make_plan, "flowbp_bridge")
flowbp_sparse = partial(make_plan, "flowbp_sparse")
prfl = partial(make_plan, "prfl")
refl = partial(make_plan, "refl")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(number: int, steps: int, **options: object) -> list[Plan]:
    generator = seeded()
    return [drtune(generator, sigma_table(steps), **options) for _ in range(number)]  # type: ignore[arg-type]


def test_draft_k_counts_from_the_last_step_that_matters() -> None:
    plan = draft_k(seeded(), sigma_table(25), active_steps=3)
    # 24 is the step of |d| = 0.0027; 21, 22, 23 are the last three that matter
    assert plan.active == (21, 22, 23, 24)
    assert (plan.steps, plan.stop, plan.reward_input) == (25, 25, "end")
    assert (plan.nested, plan.rescale) == (1.0, 1.0)
    carried = sum(abs(plan.weights[i]) for i in plan.active)
    assert carried > 0.2
    assert plan.gradient_scale == pytest.approx(1 / carried)


def test_draft_k_as_in_the_paper_when_every_step_counts() -> None:
    plan = draft_k(seeded(), sigma_table(25), active_steps=1, smallest_step=0.0, rescale=0.0)
    assert plan.active == (24,)
    assert abs(plan.weights[24]) == pytest.approx(0.00271, abs=1e-5)
    assert plan.gradient_scale == 1.0
    everything = draft_k(seeded(), sigma_table(25), active_steps=24)
    assert everything.active == tuple(range(25))


def test_drtune_follows_the_published_spacing() -> None:
    stops: Counter[int] = Counter()
    for plan in draws(600, 25, active_steps=3):
        s = plan.stop
        stops[s] += 1
        assert plan.reward_input == "posterior_mean"
        assert plan.nested == 0.0
        assert len(plan.weights) == s + 1
        stride = plan.active[1] - plan.active[0]
        assert plan.active == (plan.active[0], plan.active[0] + stride, plan.active[0] + 2 * stride)
        if s < 24:  # at s = 24 the stop step itself has weight 0.0027 and is left out
            assert stride == (s + 1) // 3
            assert plan.active[-1] <= s
        else:
            assert stride == 8
            assert plan.active[-1] <= 23
    assert set(stops) == set(range(15, 25))  # N - U{1 ... 10}
    # each stop has probability 1/10: 60 of 600, standard deviation 7.3
    assert all(30 <= count <= 90 for count in stops.values())


def test_drtunes_stop_range_is_rounded_as_published() -> None:
    # int(round(0.4 * 9)) = 4 in FlowBP's trainer: stops 5 ... 8
    assert {plan.stop for plan in draws(300, 9, active_steps=2)} == {5, 6, 7, 8}
    assert {plan.stop for plan in draws(50, 9, active_steps=2, stop_range=0.05)} == {8}


def test_drtune_reaches_every_step_and_the_stop_step() -> None:
    plans = draws(600, 16, active_steps=4)
    touched = {i for plan in plans for i in plan.active}
    assert touched == set(range(15))
    on_stop = [plan for plan in plans if plan.active[-1] == plan.stop]
    assert on_stop
    for plan in on_stop:
        assert plan.weights[plan.stop] == pytest.approx(-float(sigma_table(16)[plan.stop]))


def test_drtune_offsets_are_uniform() -> None:
    # s + 1 executed steps, stride (s + 1) // 2: offsets 0 ... s - stride, all equally likely
    plans = [p for p in draws(3000, 10, active_steps=2) if p.stop == 7]
    offsets = Counter(p.active[0] for p in plans)
    assert set(offsets) == {0, 1, 2, 3}
    expected = len(plans) / 4
    assert all(abs(count - expected) < 4 * expected**0.5 for count in offsets.values())


def test_drtune_without_early_stop_reads_the_end() -> None:
    for plan in draws(200, 16, active_steps=5, early_stop=False):
        assert (plan.stop, plan.reward_input) == (16, "end")
        assert plan.active[-1] <= 14  # never the step of |d| = 0.0027
        assert {b - a for a, b in zip(plan.active, plan.active[1:], strict=False)} == {3}
    assert {p.active for p in draws(200, 16, active_steps=5, early_stop=False)} == {
        tuple(range(o, 15, 3)) for o in range(3)
    }


def test_the_rescale_carries_the_whole_chain() -> None:
    for plan in draws(50, 16, active_steps=4):
        carried = plan.gradient_scale * sum(abs(plan.weights[i]) for i in plan.active)
        assert carried == pytest.approx(1.0, rel=1e-6)  # the weights of a chain sum to s_0 = 1


def test_plans_repeat_with_their_generator_and_draw_alike() -> None:
    sigmas = sigma_table(16)
    first, second = seeded(3), seeded(3)
    a = [make_plan("drtune", first, sigmas, active_steps=4) for _ in range(20)]
    b = [make_plan("drtune", second, sigmas, active_steps=4) for _ in range(20)]
    assert a == b
    assert len(set(a)) > 10
    # The stream moves by the same amount whatever the options: later plans stay comparable.
    make_plan("drtune", first, sigmas, active_steps=1, early_stop=False)
    make_plan("drtune", second, sigmas, active_steps=4)
    assert torch.equal(first.get_state(), second.get_state())


def test_refusals() -> None:
    sigmas = sigma_table(10)
    with pytest.raises(TuningError, match=r"method\.kind is 'reflow'; allowed are draft, "):
        make_plan("reflow", seeded(), sigmas)
    with pytest.raises(TuningError, match=r"active_steps is 10.* 1 \.\.\. 9"):
        draft_k(seeded(), sigmas, active_steps=10)
    with pytest.raises(TuningError, match="active_steps is 0"):
        draft_k(seeded(), sigmas, active_steps=0)
    # m = 4: the earliest stop is 6, seven executed steps. Refused whatever the draw is.
    for seed in range(20):
        with pytest.raises(TuningError, match=r"a stop at step 6 allowed is 1 \.\.\. 7"):
            drtune(seeded(seed), sigmas, active_steps=8)
        assert len(drtune(seeded(seed), sigmas, active_steps=7).active) == 7
    with pytest.raises(TuningError, match="stop_range is 1"):
        drtune(seeded(), sigmas, active_steps=2, stop_range=1.0)
    with pytest.raises(TuningError, match="smallest_step is -1"):
        drtune(seeded(), sigmas, active_steps=2, smallest_step=-1.0)
    with pytest.raises(TuningError, match=r"lateness is -0\.5"):
        flowbp_sparse(seeded(), sigmas, active_steps=2, lateness=-0.5)
    with pytest.raises(TuningError, match=r"active_steps is 10.* 1 \.\.\. 9"):
        flowbp_sparse(seeded(), sigmas, active_steps=10)
    with pytest.raises(TuningError, match=r"stop_range is 0"):
        refl(seeded(), sigmas, stop_range=0.0)
    with pytest.raises(TuningError, match="truncation is 'normal'"):
        alignprop(seeded(), sigmas, truncation="normal")  # type: ignore[arg-type]
    with pytest.raises(TuningError, match="active_steps is 1; must be greater than or equal to 2"):
        flowbp_bridge(seeded(), sigmas, active_steps=1)
    with pytest.raises(TuningError, match=r"active_steps is 10.* 1 \.\.\. 9"):
        flowbp_bridge(seeded(), sigmas, active_steps=10)
    with pytest.raises(TuningError, match="lateness is -1"):
        flowbp_bridge(seeded(), sigmas, lateness=-1.0)
    with pytest.raises(TuningError, match="strategy is 'head'"):
        easyanimate(seeded(), sigmas, strategy="head", active_steps=2)  # type: ignore[arg-type]
    with pytest.raises(TuningError, match=r"active_steps is 4; allowed is 1 \.\.\. 3"):
        easyanimate(seeded(), sigmas, strategy="random", active_steps=4, first_step=2, last_step=4)
    with pytest.raises(TuningError, match=r"first_step and last_step are 0 and 10; .* 0 \.\.\. 9"):
        easyanimate(seeded(), sigmas, strategy="random", active_steps=4, last_step=10)


OPTIONS: dict[str, list[dict[str, object]]] = {
    "draft": [{}, {"nested": 0.5}],
    "draft_k": [{"active_steps": 3}, {"active_steps": 1, "smallest_step": 0.0}],
    "alignprop": [{}, {"truncation": "gaussian"}],
    "drtune": [{"active_steps": 3}, {"active_steps": 2, "early_stop": False}],
    "refl": [{}, {"stop_range": 1.0}],
    "flowbp_sparse": [{"active_steps": 3}, {"active_steps": 1, "lateness": 0.0}],
    "flowbp_bridge": [{}, {"active_steps": 2, "nested": 0.5}, {"active_steps": 4, "rescale": 1.0}],
    "prfl": [{}, {"step_range": (0.5, 1.0)}],
    "easyanimate": [
        {"active_steps": 3},
        {"strategy": "last"},
        {"strategy": "uniform", "active_steps": 3},
        {"strategy": "random", "active_steps": 3, "stop_input_gradient": True},
        {"steps_list": [5, 1, 2]},
    ],
}


BEYOND = {"draft_lv", "leapalign", "flowbp_lagrange", "direct_align"}
"""Methods with another reward input than the chain's: `test_methods_beyond_the_chain.py`."""


def test_every_method_is_tested_here_or_there() -> None:
    assert set(OPTIONS) | BEYOND == set(METHODS)


@pytest.mark.parametrize("kind", OPTIONS)
def test_every_draw_is_a_plan_of_the_table(kind: str) -> None:
    generator = seeded(5)
    for steps in (7, 10, 16, 25, 50):
        sigmas = sigma_table(steps)
        for options in OPTIONS[kind]:
            for _ in range(50):
                plan = make_plan(kind, generator, sigmas, **options)
                assert plan.steps == steps
                assert plan.weights == chain_weights(
                    sigmas, plan.stop, plan.reward_input
                )  # d x-hat / d v_i of the Euler chain
                left = float(sigmas[plan.stop]) if plan.reward_input == "state" else 0.0
                assert sum(abs(w) for w in plan.weights) == pytest.approx(1.0 - left, rel=1e-6)
                assert plan.gradient_scale >= 1.0


@pytest.mark.parametrize("kind", OPTIONS)
def test_every_method_equals_autograd_of_its_own_chain(kind: str) -> None:
    flow = ToyFlow(8, negative="detached")
    generator = seeded(11)
    for options in OPTIONS[kind]:
        for _ in range(4):
            plan = make_plan(kind, generator, flow.sigmas, **options)
            flow.zero_grad()
            states = rollout(flow, flow.noise(), flow.sigmas, plan.stop)
            _, g = reward_gradient(toy_loss, read_reward_input(flow, states, plan))
            adjoint_sweep(flow, states, flow.sigmas, plan, g)
            got = {name: p.grad for name, p in flow.named_parameters() if p.grad is not None}
            _, expected = chain_gradients(flow, flow.noise(), flow.sigmas, plan)
            assert relative_error(got, expected) <= 1e-11, (options, plan.active)


def test_draft_is_plain_backpropagation() -> None:
    """Written out without plans: every step with gradient, one backward."""
    flow = ToyFlow(6)
    plan = draft(seeded(), flow.sigmas)
    x = flow.noise()
    for i in range(6):
        x = x + (flow.sigmas[i + 1] - flow.sigmas[i]) * flow(x, i)
    gradients = torch.autograd.grad(toy_loss(x), list(flow.parameters()))
    flow.zero_grad()
    states = rollout(flow, flow.noise(), flow.sigmas, plan.stop)
    _, g = reward_gradient(toy_loss, read_reward_input(flow, states, plan))
    adjoint_sweep(flow, states, flow.sigmas, plan, g)
    for parameter, gradient in zip(flow.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-11, atol=0)


def test_alignprop_draws_every_tail_alike_or_around_its_cutoff() -> None:
    sigmas, generator = sigma_table(11), seeded()  # ten steps that matter, and the short last one
    uniform = Counter(
        len(alignprop(generator, sigmas, truncation="uniform").active) - 1 for _ in range(1800)
    )
    assert set(uniform) == set(range(1, 10))  # the cut-off is drawn from 1 ... 9 of 10
    # 200 each, standard deviation 13.3
    assert all(140 <= count <= 260 for count in uniform.values())
    for plan in (alignprop(generator, sigmas) for _ in range(50)):
        assert plan.active == tuple(range(plan.active[0], 11))
        assert (plan.nested, plan.reward_input) == (1.0, "end")


def test_alignprops_cutoff_is_floored_and_drawn_again_as_published() -> None:
    """`int(Normal(42, 5).sample())` until it lies in 1 ... 49 of 50 steps, drawn here by hand."""
    sigmas, generator = torch.linspace(1.0, 0.0, 51), seeded(1)
    ours = Counter(50 - len(alignprop(generator, sigmas).active) for _ in range(4000))
    theirs: Counter[int] = Counter()
    normal = torch.randn(200_000, generator=seeded(2), dtype=torch.float64)
    for cutoff in (42 + 5 * normal).tolist():
        if 1 <= int(cutoff) < 50:
            theirs[int(cutoff)] += 1
    total = sum(theirs.values())
    assert theirs[49] / total == pytest.approx(0.028, abs=0.002)  # K = 1
    for cutoff in range(1, 50):
        expected = 4000 * theirs[cutoff] / total
        assert abs(ours[cutoff] - expected) < 4.5 * expected**0.5 + 2, cutoff
    assert alignprop(generator, torch.tensor([1.0, 0.0])).active == (0,)
    assert alignprop(generator, torch.tensor([1.0, 0.5, 0.0])).active == (1,)


def test_refl_trains_one_late_step_on_its_posterior_mean() -> None:
    generator, sigmas = seeded(), sigma_table(40)
    plans = [refl(generator, sigmas) for _ in range(1000)]
    assert {p.stop for p in plans} == set(range(30, 40))  # U{30 ... 39} of 40, as published
    for plan in plans:
        assert plan.active == plan.visited == (plan.stop,)
        assert plan.weights[plan.stop] == pytest.approx(-float(sigmas[plan.stop]))
        assert (plan.nested, plan.gradient_scale) == (0.0, 1.0)


def test_flowbp_sparse_prefers_late_steps_by_its_law() -> None:
    generator, sigmas = seeded(), sigma_table(10)
    drawn = Counter(flowbp_sparse(generator, sigmas, active_steps=1).active[0] for _ in range(9000))
    total = sum((i + 1) ** 2 for i in range(9))
    for i in range(9):
        expected = 9000 * (i + 1) ** 2 / total
        assert abs(drawn[i] - expected) < 4.5 * expected**0.5 + 1, i
    assert drawn[9] == 0  # |d| = 0.0027
    for _ in range(100):
        plan = flowbp_sparse(generator, sigmas, active_steps=3)
        assert len(plan.active) == 3
        assert plan.gradient_scale * sum(abs(plan.weights[i]) for i in plan.active) == (
            pytest.approx(1.0, rel=1e-6)
        )


def test_flowbp_bridge_crosses_one_step_with_steps_on_both_sides() -> None:
    generator, sigmas = seeded(), sigma_table(12)
    bridges: Counter[int] = Counter()
    for _ in range(2000):
        plan = flowbp_bridge(generator, sigmas, rescale=0.0)
        (bridge,) = plan.through or ()
        bridges[bridge] += 1
        assert len(plan.active) == 5
        assert bridge in plan.active
        assert plan.active[0] < bridge
        assert plan.active[-1] <= 10  # 11 is the step of |d| = 0.0027
        before = sum(i < bridge for i in plan.active)
        behind = 10 - bridge
        assert before == min(max(round(5 * bridge / 11), 1, 4 - behind), bridge, 4)
        assert plan.visited == tuple(reversed(plan.active))
        assert (plan.nested, plan.gradient_scale) == (0.1, 1.0)
    # the later of two of 11: j with probability j / 55
    for j in range(1, 11):
        expected = 2000 * j / 55
        assert abs(bridges[j] - expected) < 4.5 * expected**0.5, j
    for _ in range(50):  # the rescale multiplies what crosses the bridge, too
        plan = flowbp_bridge(generator, sigmas, nested=1.0, rescale=0.5)
        carried = sum(abs(plan.weights[i]) for i in plan.active)
        assert plan.gradient_scale == pytest.approx(0.5 + 0.5 / carried)
        assert plan.nested == plan.gradient_scale > 1.0
    for k in range(2, 12):  # up to every step there is
        for _ in range(100):
            assert len(flowbp_bridge(generator, sigmas, active_steps=k).active) == k


def test_prfl_reads_the_noisy_state_after_one_step_anywhere() -> None:
    generator, sigmas = seeded(), sigma_table(9)
    drawn: Counter[int] = Counter()
    for _ in range(1600):
        plan = prfl(generator, sigmas)
        (step,) = plan.active
        drawn[step] += 1
        assert (plan.stop, plan.reward_input, plan.visited) == (step + 1, "state", (step,))
        assert plan.weights[step] == pytest.approx(float(sigmas[step + 1] - sigmas[step]))
    assert set(drawn) == set(range(8))  # the last step's end is no noisy state
    assert all(140 <= count <= 260 for count in drawn.values())
    late = {prfl(generator, sigmas, step_range=(0.5, 1.0)).active[0] for _ in range(200)}
    assert late == {4, 5, 6, 7}
    with pytest.raises(TuningError, match=r"step_range is \[0\.5, 0\.5\]"):
        prfl(seeded(), sigmas, step_range=(0.5, 0.5))
    with pytest.raises(TuningError, match=r"sampling\.steps is 1"):
        prfl(seeded(), torch.tensor([1.0, 0.0]))


def test_easyanimates_strategies_are_the_scripts() -> None:
    generator, sigmas = seeded(), sigma_table(50)
    assert easyanimate(generator, sigmas, strategy="last").active == (49,)
    assert easyanimate(generator, sigmas).active == tuple(range(40, 50))
    starts = set()
    for _ in range(300):
        active = easyanimate(generator, sigmas, strategy="uniform", active_steps=5).active
        starts.add(active[0])
        # start in 0 ... 10, both included; from 10 the fifth lies at 50 and is never run
        whole = [active[0] + 10 * i for i in range(5)]
        assert list(active) == [i for i in whole if i < 50]
    assert starts == set(range(11))
    for _ in range(100):
        plan = easyanimate(
            generator, sigmas, strategy="random", active_steps=4, first_step=20, last_step=29
        )
        assert len(set(plan.active)) == 4
        assert set(plan.active) <= set(range(20, 30))
        assert (plan.nested, plan.through, plan.gradient_scale) == (1.0, plan.active, 1.0)
    assert easyanimate(generator, sigmas, stop_input_gradient=True).nested == 0.0
    listed = easyanimate(generator, sigmas, strategy="last", steps_list=[40, 3, 49])
    assert (listed.active, listed.through, listed.nested) == ((3, 40, 49), (3, 40, 49), 1.0)
    with pytest.raises(TuningError, match=r"steps_list\.0 is -1; must be greater"):
        easyanimate(generator, sigmas, steps_list=[-1, 2])
    for wrong in ([], [3, 3], [50]):
        with pytest.raises(TuningError, match=r"steps_list is .* distinct steps of 0 \.\.\. 49"):
            easyanimate(generator, sigmas, steps_list=wrong)
    lonely = {
        easyanimate(seeded(i), sigmas, strategy="uniform", active_steps=1).active
        for i in range(300)
    }
    assert (49,) in lonely

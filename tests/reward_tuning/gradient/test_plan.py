"""The plan: weights, the rescale, which steps the sweep visits, and what it refuses."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.gradient.plan import Plan, Renoised, chain_weights, steps_that_matter
from tests.reward_tuning.toy_flow import mu_one_table

SIGMAS = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])


def plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "steps": 4,
        "stop": 4,
        "reward_input": "end",
        "active": (1, 3),
        "weights": chain_weights(SIGMAS),
        "nested": 1.0,
    }
    return Plan(**{**values, **changes})


def test_weights_of_the_end_and_of_the_posterior_mean() -> None:
    assert chain_weights(SIGMAS) == (-0.25, -0.25, -0.25, -0.25)
    # x_2 - s_2 v_2 with s_2 = 0.5
    assert chain_weights(SIGMAS, 2, "posterior_mean") == (-0.25, -0.25, -0.5)
    assert chain_weights(SIGMAS, 0, "posterior_mean") == (-1.0,)


def test_last_weights_of_the_published_table() -> None:
    # reference table: |d| of the last five of 50 steps, and the sums of the last 1, 2, 5, 10
    weights = chain_weights(mu_one_table(50))
    assert [round(-w, 4) for w in weights[-5:]] == [0.0439, 0.0467, 0.0499, 0.0534, 0.0027]
    assert [round(-sum(weights[-k:]), 3) for k in (2, 5, 10)] == [0.056, 0.197, 0.381]


@pytest.mark.parametrize("steps", [6, 10, 16, 25, 50])
def test_only_the_last_step_of_the_published_table_does_not_matter(steps: int) -> None:
    weights = chain_weights(mu_one_table(steps))
    assert steps_that_matter(weights, 0.25) == tuple(range(steps - 1))
    assert steps_that_matter(weights, 0.0) == tuple(range(steps))


def test_gradient_scale_gives_the_active_steps_the_whole_weight() -> None:
    weights = (-0.1, -0.2, -0.3, -0.4)
    for rho, expected in ((0.0, 1.0), (1.0, 1.0 / 0.6), (0.5, 0.5 + 0.5 / 0.6)):
        got = plan(weights=weights, rescale=rho).gradient_scale
        assert got == pytest.approx(expected, rel=1e-12)
    everything = plan(weights=weights, active=(0, 1, 2, 3), rescale=1.0)
    assert everything.gradient_scale == pytest.approx(1.0)


def test_visited_steps() -> None:
    assert plan().visited == (3, 2, 1)
    assert plan(active=(1, 2)).visited == (
        3,
        2,
        1,
    )  # from the reward down, not from the last active
    assert plan(nested=0.3).visited == (3, 2, 1)
    assert plan(nested=0.0).visited == (3, 1)
    assert plan(through=(1, 3)).visited == (3, 1)
    assert plan(through=()).visited == (3, 1)
    assert plan(through=(2,)).visited == (3, 2, 1)
    assert [i for i in range(4) if plan(through=(0, 1, 2)).flows_through(i)] == [2]
    leaping = plan(weights=(0.0, -0.5, 0.0, -0.25))
    assert leaping.visited == (3, 1)  # nothing reaches a step of weight 0
    early = plan(
        stop=2,
        reward_input="posterior_mean",
        weights=chain_weights(SIGMAS, 2, "posterior_mean"),
        active=(1,),
    )
    assert early.visited == (2, 1)


def test_a_fresh_look_is_one_active_step() -> None:
    assert Renoised(0.4).weight == pytest.approx(-0.4)
    assert Renoised(0.7, 0.6).weight == pytest.approx(-0.1 / 0.4)
    afresh = plan(active=(), renoised=(Renoised(0.7, 0.6),), rescale=1.0)
    assert (afresh.visited, afresh.gradient_scale) == ((), 1.0)
    look = afresh.look(afresh.renoised[0])
    assert (look.active, look.visited, look.stop, look.reward_input) == (
        (0,),
        (0,),
        0,
        "posterior_mean",
    )
    assert look.gradient_scale * abs(look.weights[0]) == pytest.approx(1.0)
    half = plan(active=(), renoised=afresh.renoised, rescale=0.5).look(afresh.renoised[0])
    assert half.gradient_scale == pytest.approx(0.5 + 0.5 / 0.25)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0.0,), "noised again to 0.0, denoised to 0.0"),
        ((1.1,), "1.1"),
        ((0.4, 0.4), "0 <= sigma_to < sigma <= 1"),
        ((0.4, -0.1), "-0.1"),
        ((0.4, 0.1, True, 0.0), "share is 0.0"),
        ((0.4, 0.1, True, 1.5), "share is 1.5"),
    ],
)
def test_a_fresh_look_out_of_range_is_refused(values: tuple[Any, ...], said: str) -> None:
    with pytest.raises(TuningError, match=re.escape(said)):
        Renoised(*values)


def test_plan_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan().nested = 0.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"active": ()}, "no active steps and no fresh look"),
        (
            {
                "stop": 2,
                "reward_input": "posterior_mean",
                "active": (1,),
                "weights": chain_weights(SIGMAS, 2, "posterior_mean"),
                "renoised": (Renoised(0.5),),
            },
            "the end must be reached",
        ),
        ({"active": (3, 1)}, "ascending"),
        ({"active": (1, 1)}, "distinct"),
        ({"active": (4,)}, "outside the executed steps 0 ... 3"),
        ({"active": (-1,)}, "outside"),
        ({"stop": 3}, "stops at 3 of 4"),
        ({"reward_input": "posterior_mean"}, "early stop in 0 ... 3; got 4"),
        ({"reward_input": "middle"}, "'middle'"),
        ({"reward_input": "state"}, "after step 1 ... 3 of 4; got 4"),
        ({"reward_input": "state", "stop": 0}, "got 0"),
        ({"weights": (-1.0,)}, "1 weights for 4"),
        ({"weights": (-1.0, 0.0, -1.0, -1.0)}, "weight 0"),
        ({"nested": -0.5}, "nested is -0.5"),
        ({"nested": float("inf")}, "nested is inf"),
        ({"nested": float("nan")}, "nested is nan"),
        ({"rescale": -0.1}, "rescale is -0.1"),
        ({"through": (2, 1)}, "through steps [2, 1]; they must be distinct and ascending"),
        ({"through": (4,)}, "through steps [4] lie outside"),
        ({"leap_floor": 0.0}, "leap_floor is 0.0 with 0 leaps"),
        ({"leap_floor": 0.1}, "leap_floor is 0.1 with 0 leaps"),
        ({"steps": 0, "stop": 0, "weights": ()}, "at least 1"),
    ],
)
def test_refusals_name_the_value(changes: dict[str, object], said: str) -> None:
    with pytest.raises(TuningError, match=re.escape(said)):
        plan(**changes)


@pytest.mark.parametrize(
    "sigmas",
    [
        torch.tensor([1.0]),
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([1.0, 0.5]),
        torch.tensor([1.0, 0.5, 0.5, 0.0]),
        torch.tensor([0.0, 1.0]),
    ],
)
def test_a_table_that_does_not_fall_to_zero_is_refused(sigmas: torch.Tensor) -> None:
    with pytest.raises(TuningError, match="sigmas"):
        chain_weights(sigmas)

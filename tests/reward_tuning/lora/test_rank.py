"""Truncation against the SVD of the whole product, and strengths baked in."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.rank import scaled_by, strength_metadata, truncated
from tests.reward_tuning.lora.test_export import tuned

RANK = 6


def random_weights() -> LoraWeights:
    """Two modules of very different size, one narrower than the rank."""
    draw = torch.Generator().manual_seed(5)

    def factors(out: int, into: int, size: float) -> tuple[Tensor, Tensor]:
        down = torch.randn(RANK, into, generator=draw)
        return down, size * torch.randn(out, RANK, generator=draw)

    return LoraWeights(RANK, 3.0, {"a": factors(40, 30, 1.0), "b": factors(4, 50, 0.01)})


def product(weights: LoraWeights, path: str) -> Tensor:
    down, up = weights.state[path]
    return weights.strength * (up.double() @ down.double())


@pytest.mark.parametrize("rank", range(1, RANK))
def test_it_is_the_best_approximation_and_the_error_is_measured(rank: int) -> None:
    weights = random_weights()
    found = truncated(weights, rank)
    assert (found.weights.rank, found.weights.strength, found.before) == (rank, 0.5, RANK)
    lost = whole = 0.0
    for path in ("a", "b"):
        exact = product(weights, path)
        left, values, right = torch.linalg.svd(exact, full_matrices=False)
        best = (left[:, :rank] * values[:rank]) @ right[:rank]
        down, up = found.weights.state[path]
        assert (down.shape[0], up.shape[1]) == (rank, rank)
        got = product(found.weights, path)
        assert float((got - best).norm() / exact.norm()) < 1e-6
        error = float((got - exact).norm() / exact.norm())
        assert found.modules[path] == pytest.approx(error, abs=1e-9)
        beyond = float(values[rank:].norm() / values.norm())  # Eckart and Young
        assert error == pytest.approx(beyond, abs=1e-6)
        lost, whole = lost + float((got - exact).norm()) ** 2, whole + float(exact.norm()) ** 2
    assert found.total == pytest.approx(math.sqrt(lost / whole), abs=1e-9)
    assert found.total == pytest.approx(found.modules["a"], rel=1e-3)  # b is small
    assert found.modules[found.worst] == max(found.modules.values())
    assert f"rank 6 to {rank}: " in str(found)
    assert found.worst in str(found)
    told = json.loads(found.metadata["reward_tuning.truncation"])
    assert (told["rank"], told["before"]) == (rank, RANK)
    assert told["error"] == pytest.approx(found.total, abs=1e-8)


def test_the_same_rank_keeps_every_bit_and_a_stored_dtype_counts() -> None:
    weights = random_weights()
    same = truncated(weights, RANK)
    assert same.weights.state == weights.state
    assert same.weights.alpha == weights.alpha
    assert same.total < 1e-12
    half = truncated(weights, RANK, dtype=torch.bfloat16)
    exact = product(weights, "a")
    down, up = (factor.bfloat16().double() for factor in weights.state["a"])
    error = float((0.5 * up @ down - exact).norm() / exact.norm())
    assert half.modules["a"] == pytest.approx(error, rel=1e-6)
    assert 1e-3 < error < 1e-2


def test_a_product_of_lower_rank_is_kept_and_one_of_zeros_has_no_error() -> None:
    weights = random_weights()
    down, up = weights.state["a"]
    state = {"a": (down, torch.cat([up[:, :2], torch.zeros(40, 4)], dim=1))}
    state["zero"] = (down, torch.zeros(40, RANK))
    found = truncated(LoraWeights(RANK, 3.0, state), 2)
    assert found.modules["a"] < 1e-6
    assert found.modules["zero"] == 0.0
    nothing = truncated(LoraWeights(RANK, 3.0, {"zero": state["zero"]}), 2)
    assert nothing.total == 0.0


@pytest.mark.parametrize("rank", [0, -1, 7])
def test_a_rank_that_is_none_is_refused(rank: int) -> None:
    with pytest.raises(TuningError, match=rf"the rank is {rank}; allowed: 1 to 6"):
        truncated(random_weights(), rank)


@pytest.mark.parametrize("strength", [0.7, 2.0, -1.5])
def test_a_strength_scales_the_product(strength: float) -> None:
    _, weights = tuned("attention")
    found = scaled_by(weights, strength)
    assert found.alpha > 0
    for path in weights.state:
        expected = strength * product(weights, path)
        assert torch.allclose(product(found, path), expected, rtol=1e-12, atol=0)
    if strength > 0:
        assert found.state is weights.state  # the factors keep their bits


@pytest.mark.parametrize("strength", [0.0, math.nan, math.inf])
def test_a_strength_that_leaves_nothing_is_refused(strength: float) -> None:
    with pytest.raises(TuningError, match="allowed: a finite number other than 0"):
        scaled_by(random_weights(), strength)


def test_strengths_of_several_exports_are_multiplied() -> None:
    assert strength_metadata(1.0, {}) == {}
    first = strength_metadata(0.5, {})
    assert first == {"reward_tuning.strength": "0.5"}
    assert strength_metadata(0.5, first) == {"reward_tuning.strength": "0.25"}
    broken = {"reward_tuning.strength": "much"}
    assert strength_metadata(0.5, broken) == first

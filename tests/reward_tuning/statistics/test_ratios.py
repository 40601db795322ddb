"""A ratio of means, and its standard error."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reward_tuning.statistics.ratios import Ratio, standard_error


def test_the_error_of_a_ratio_is_that_of_repeated_samples() -> None:
    draw = np.random.default_rng(0)

    def sample(n: int) -> tuple[list[float], list[float]]:
        base = draw.gamma(4.0, 0.25, n)
        return list(0.9 * base + draw.normal(0.0, 0.1, n)), list(base)

    ratios = [Ratio.of(*sample(16)) for _ in range(2000)]
    spread = float(np.std([one.value for one in ratios]))
    assert np.mean([one.error for one in ratios]) == pytest.approx(spread, rel=0.06)
    assert np.mean([one.value for one in ratios]) == pytest.approx(0.9, abs=0.005)


def test_a_ratio_that_cannot_be_formed() -> None:
    assert math.isnan(Ratio.of([0.1], [0.0]).value)
    assert math.isnan(Ratio.of([], []).value)
    assert Ratio.of([0.5], [1.0]).error == math.inf


def test_standard_error() -> None:
    assert standard_error([1.0, 3.0]) == pytest.approx(1.0)
    assert standard_error([1.0]) == math.inf

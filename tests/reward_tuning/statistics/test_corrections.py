"""Corrections for the number of comparisons: published examples, and simulation."""

import itertools

import numpy as np
import pytest

from reward_tuning.statistics.corrections import adjusted, holm


def test_holm_by_hand() -> None:
    """R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") is 0.03 0.06 0.06 0.02."""
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    """By its definition: the largest Bonferroni p of all subsets that contain a hypothesis."""
    p = dict(zip("abcde", np.random.default_rng(1).uniform(0, 0.3, 5).tolist(), strict=True))
    for name, value in holm(p).items():
        subsets = [s for n in range(1, 6) for s in itertools.combinations(p, n) if name in s]
        closed = max(min(1.0, len(s) * min(p[one] for one in s)) for s in subsets)
        assert value == pytest.approx(closed)


def test_the_primary_measure_stays() -> None:
    p = {"clip": 0.04, "motion": 0.03, "hps": 0.01}
    assert adjusted(p, "clip") == pytest.approx({"clip": 0.04, "motion": 0.03, "hps": 0.02})
    assert adjusted(p, None) == pytest.approx({"clip": 0.06, "motion": 0.06, "hps": 0.03})

"""Leaps: their quadrature against the open Newton-Cotes rules."""

from __future__ import annotations

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.gradient.leaps import Leap, quadrature_weights, spread_steps


def test_lagrange_weights_are_those_of_the_open_newton_cotes_rules() -> None:
    """Textbook numbers; and a polynomial of the points' degree is integrated exactly."""
    assert quadrature_weights([0.3], 0.3, 0.1) == pytest.approx([-0.2])
    assert quadrature_weights([1.0, 2.0], 0.0, 3.0) == pytest.approx([1.5, 1.5])
    assert quadrature_weights([1.0, 2.0, 3.0], 0.0, 4.0) == pytest.approx([8 / 3, -4 / 3, 8 / 3])
    assert quadrature_weights([0.0, 1.0, 2.0], 0.0, 3.0) == pytest.approx([0.75, 0.0, 2.25])
    points = [0.9, 0.55, 0.3]
    weights = quadrature_weights(points, 0.9, 0.1)
    for power in range(3):
        exact = (0.1 ** (power + 1) - 0.9 ** (power + 1)) / (power + 1)
        assert sum(w * s**power for w, s in zip(weights, points, strict=True)) == (
            pytest.approx(exact, rel=1e-12)
        )
    assert spread_steps(3, 20, 3) == (3, 11, 19)
    assert spread_steps(3, 5, 3) == (3, 4)
    assert spread_steps(3, 9, 1) == (3,)
    with pytest.raises(TuningError, match="from step 2 to 4 takes the velocities of steps"):
        Leap(2, 4, (2, 4), (-0.1, -0.1))

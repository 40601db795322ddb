"""The incomplete beta function, against scipy."""

import pytest
from scipy import special, stats

from reward_tuning.statistics.beta import beta_cdf, beta_quantile, student_p, student_quantile


@pytest.mark.parametrize("a", [0.5, 1.0, 2.5, 31.0, 900.0])
@pytest.mark.parametrize("b", [0.5, 1.0, 7.25, 128.0])
def test_against_scipy(a: float, b: float) -> None:
    for x in (0.0, 1e-9, 0.01, 0.3, 0.5, 0.77, 0.999, 1.0):
        assert beta_cdf(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-10, abs=1e-14)
    for share in (0.025, 0.5, 0.975):
        assert beta_quantile(share, a, b) == pytest.approx(
            special.betaincinv(a, b, share), abs=1e-9
        )


@pytest.mark.parametrize("freedom", [1, 2, 7, 31, 127, 999])
def test_students_t(freedom: int) -> None:
    for t in (0.0, 0.3, 2.0, -2.0, 6.0):
        assert student_p(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-9)
    for p in (0.05, 0.01, 0.5):
        assert student_quantile(p, freedom) == pytest.approx(
            stats.t.ppf(1 - p / 2, freedom), rel=1e-7
        )

"""Several values after one name."""

from __future__ import annotations

import pytest

from reward_tuning.cli.list_options import spread_lists

LISTS = {"--steps", "--strengths"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("run --steps 8 25 50", "run --steps 8 --steps 25 --steps 50"),
        ("--steps 8 25 --count 4 x", "--steps 8 --steps 25 --count 4 x"),
        ("--steps 8 --steps 25", "--steps 8 --steps 25"),
        ("--strengths -0.5 -.5 1 --json", "--strengths -0.5 --strengths -.5 --strengths 1 --json"),
        ("a b --count 4 5", "a b --count 4 5"),
        ("--steps 8 -- --steps 9 10", "--steps 8 -- --steps 9 10"),
        ("--steps", "--steps"),
        ("--steps=8 25", "--steps=8 25"),
    ],
)
def test_spread(given: str, expected: str) -> None:
    assert list(spread_lists(given.split(), LISTS)) == expected.split()

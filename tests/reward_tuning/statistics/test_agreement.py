"""Agreement of voters, against Krippendorff's own example."""

import pytest

from reward_tuning.statistics.agreement import agreement, krippendorff


def test_krippendorffs_example() -> None:
    """Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, C: nominal, 0.743."""
    a = ["1", "2", "3", "3", "2", "1", "4", "1", "2", ".", ".", "."]
    b = ["1", "2", "3", "3", "2", "2", "4", "1", "2", "5", ".", "3"]
    c = [".", "3", "3", "3", "2", "3", "4", "2", "2", "5", "1", "."]
    d = ["1", "2", "3", "3", "2", "4", "4", "1", "2", "5", "1", "."]
    units = [[one for one in of if one != "."] for of in zip(a, b, c, d, strict=True)]
    assert krippendorff(units) == pytest.approx(0.743, abs=5e-4)


def test_full_agreement_and_none() -> None:
    assert krippendorff([["a", "a"], ["b", "b"]]) == 1.0
    assert krippendorff([["a", "a"], ["a", "a"]]) is None
    assert krippendorff([["a"], ["b"]]) is None


def test_pairs_of_several_voters() -> None:
    found = agreement({"x": ["a", "a", "b"], "y": ["a"], "z": ["b", "b"]}, {"x": 0, "y": 1, "z": 2})
    assert found is not None
    assert found.pairs == 2
    assert (found.alike.share, found.alike.votes) == (0.5, 4)
    assert agreement({"y": ["a"]}, {"y": 1}) is None

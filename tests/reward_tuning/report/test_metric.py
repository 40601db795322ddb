"""Keys of numbers, and the names that a key stands for."""

import pytest

from reward_tuning.report.metric import Metric, MetricText, number_keys

TEXT = MetricText("What.", "unit", "healthy", "remedy")


def test_the_keys_of_numbers() -> None:
    row = {
        "step": 1,
        "good": True,
        "name": "text",
        "drift": None,
        "reward": {"hps": 0.5},
        "active_steps": [{"step": 0, "norms": [1.0, 2.0]}, {"step": 1}],
        "batches": [[2, 5], [2, 5]],
    }
    assert sorted(set(number_keys(row))) == [
        "active_steps[].norms[]",
        "active_steps[].step",
        "batches[][]",
        "drift",
        "reward/hps",
        "step",
    ]


@pytest.mark.parametrize(
    ("key", "name", "expected"),
    [
        ("reward/JUDGE", "reward/my judge (2)", True),
        ("reward/JUDGE", "reward/a/b", False),
        ("reward/JUDGE", "reward/", False),
        ("reward/JUDGE", "rewards/a", False),
        ("active_steps[].step", "active_steps[].step", True),
        ("active_steps[].step", "active_stepss.step", False),
        ("sides[].scores/METRIC[]", "sides[].scores/hps[]", True),
        ("difference/METRIC/low", "difference/hps/low", True),
        ("difference/METRIC/low", "difference/hps/high", False),
    ],
)
def test_the_names_that_a_key_stands_for(key: str, name: str, expected: bool) -> None:
    assert Metric("run", key, TEXT).matches(name) is expected

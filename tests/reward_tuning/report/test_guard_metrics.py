"""What the numbers of guards.jsonl say."""

from reward_tuning.report.guard_metrics import GUARD_METRICS
from reward_tuning.report.metric_texts import find_metric, metric_text


def test_the_same_names_mean_other_numbers_than_in_a_step() -> None:
    for metric in GUARD_METRICS:
        assert find_metric(metric.key, "guards") is metric
    for name in ("motion", "drift"):
        units = {place: metric_text(name, place).unit for place in ("guards", "run")}
        assert units["guards"] == "ratio"
        assert units["run"] != "ratio"


def test_each_number_has_one_text() -> None:
    keys = [metric.key for metric in GUARD_METRICS]
    assert len(keys) == len(set(keys))

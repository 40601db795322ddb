"""What the numbers of metrics.jsonl say; that they are all there is in test_metric_texts.py."""

from reward_tuning.report.training_metrics import DISTIL_METRICS, FINETUNE_METRICS, RUN_METRICS
from reward_tuning.runs.guards import VANISHING


def test_the_bound_of_the_gradient_is_that_of_the_guard() -> None:
    for metrics in (RUN_METRICS, FINETUNE_METRICS, DISTIL_METRICS):
        (text,) = (metric.text for metric in metrics if metric.key == "grad_norm")
        assert f"Between {VANISHING:g} and" in text.healthy
        assert f"Below {VANISHING:g}:" in text.remedy

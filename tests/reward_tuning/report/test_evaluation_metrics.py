"""What the numbers of evaluation.json say; that they are all there is in test_metric_texts.py."""

from reward_tuning.report.evaluation_metrics import EVALUATION_METRICS
from reward_tuning.statistics.verdicts import MIN_PROMPTS


def test_the_fewest_prompts_are_those_of_the_verdict() -> None:
    (text,) = (metric.text for metric in EVALUATION_METRICS if metric.key == "prompts")
    assert f"below {MIN_PROMPTS} no verdict" in text.healthy


def test_sides_and_the_old_difference_have_the_same_texts() -> None:
    texts = {metric.key: metric.text for metric in EVALUATION_METRICS}
    old = {key: text for key, text in texts.items() if key.startswith("difference/")}
    assert len(old) == 8
    assert all(texts[f"sides[].{key}"] is text for key, text in old.items())

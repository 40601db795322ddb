import pytest

from reward_tuning.report.evaluations import Evaluation, Side
from reward_tuning.report.metric_groups import group_of, label_of, metric_records

EVALUATION = Evaluation(
    trained_on=("mine",),
    never_trained_on=("clip_held_out",),
    sides=(Side(name="base", means={"oracle": 1.0, "mine": 1.0, "motion": 1.0}),),
)


@pytest.mark.parametrize(
    ("metric", "group"),
    [
        ("clip_held_out", "never trained on"),
        ("mine", "trained on"),
        ("oracle_size", "oracle"),
        ("motion", "measures"),
    ],
)
def test_groups(metric: str, group: str) -> None:
    assert group_of(metric, EVALUATION) == group


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        ("oracle", "oracle: all right"),
        ("oracle_size", "oracle: size right"),
        ("oracle_tone_off", "oracle: background off"),
        ("hps", "hps"),
    ],
)
def test_labels(metric: str, label: str) -> None:
    assert label_of(metric) == label


def test_each_group_stands_in_one_piece() -> None:
    late = Side(name="tuned", means={"oracle": 1.0, "sharpness_mine": 1.0, "oracle_size": 1.0})
    found = EVALUATION.model_copy(update={"sides": (*EVALUATION.sides, late)})
    names = [record["name"] for record in metric_records(found, {})]
    assert names == ["mine", "oracle", "oracle_size", "motion", "sharpness_mine"]


def test_a_judge_is_explained_by_its_kind_not_by_its_name() -> None:
    mine, oracle, motion = metric_records(EVALUATION, {"mine": "hps"})
    (named,) = metric_records(Evaluation(sides=(Side(name="a", means={"hps": 1.0}),)), {})
    assert mine["name"] == "mine"
    assert mine["text"] == named["text"]
    assert oracle["share"]
    assert not motion["share"]


def test_a_held_out_judge_is_not_given_the_advice_of_a_training_judge() -> None:
    metrics = {"mine": 1.0, "clip_held_out": 1.0}
    found = EVALUATION.model_copy(update={"sides": (Side(name="base", means=metrics),)})
    held_out, trained = (one["text"] for one in metric_records(found, {"mine": "clip"}))
    assert "Up while held-out judges fall: it is being fooled" in trained["remedy"]
    assert "held-out" not in held_out["healthy"] + held_out["remedy"]
    assert held_out["remedy"].startswith("Down while the judges that are trained on rise")

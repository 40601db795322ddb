import json
from pathlib import Path

import pytest

from reward_tuning.report.dials import sampling_figures, series_of, strength_figures
from reward_tuning.report.evaluations import Change, Evaluation, Side, read_evaluation
from tests.reward_tuning.report.evaluation_folder import write_evaluation


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    # the base is the first side, so the order by strength is not that of the file
    write_evaluation(tmp_path, prompts=2, strengths=(1.0, 0.5), other_steps=True)
    found = read_evaluation(tmp_path)
    assert found is not None
    return found


def test_a_series_is_one_way_of_sampling_by_strength(evaluation: Evaluation) -> None:
    dialled, other = series_of(evaluation)
    assert (dialled.base, dialled.sides, dialled.label) == (0, (2, 1), "16 steps")
    assert (other.base, other.sides, other.label) == (3, (4,), "8 steps")


def test_a_lone_series_is_named_after_its_side(tmp_path: Path) -> None:
    found = read_evaluation(write_evaluation(tmp_path, prompts=2, strengths=(1.0,)))
    assert found is not None
    (only,) = series_of(found)
    assert only.label == "strength 1, 16 steps"
    assert strength_figures(found) == []
    assert sampling_figures(found) == []


def test_strengths_begin_at_the_base(evaluation: Evaluation) -> None:
    figures = strength_figures(evaluation)
    assert [figure.title for figure in figures] == ["clip_held_out", "hps", "motion"]
    (trace,) = figures[0].traces
    assert trace["x"] == [0.0, 0.5, 1.0]
    # scores 0.5 * (1 + s * 0.01 * (1, -2)): the mean change is -0.0025 s
    assert trace["y"] == pytest.approx([0.0, -0.00125, -0.0025])
    assert trace["error_y"]["array"] == pytest.approx([0.0, 0.01, 0.01])


def test_strengths_are_compared_on_the_prompts_that_all_have(tmp_path: Path) -> None:
    file = write_evaluation(tmp_path, prompts=4, strengths=(1.0, 0.5)) / "evaluation.json"
    found = json.loads(file.read_text())
    fewer = found["sides"][2]
    assert fewer["strength"] == 0.5
    for metric, scores in fewer["scores"].items():
        scores[2:] = [None, None]
        fewer["difference"][metric] |= {"prompts": 2, "mean": -0.00125}
    file.write_text(json.dumps(found))
    evaluation = read_evaluation(tmp_path)
    assert evaluation is not None
    figure = strength_figures(evaluation)[0]
    (trace,) = figure.traces
    # scores 0.5 * (1 + s * 0.01 * (1, -2, 3, -4)): -0.0025 s on two prompts, -0.005 s on four
    assert trace["y"] == pytest.approx([0.0, -0.00125, -0.0025])
    assert trace["error_y"]["array"][2] != pytest.approx(0.01)
    assert figure.caption == "On the 2 prompts that all strengths answered."


def test_steps_are_compared_at_one_strength(evaluation: Evaluation) -> None:
    (figure,) = sampling_figures(evaluation)
    (trace,) = figure.traces
    assert trace["x"] == [8.0, 16.0]
    assert trace["y"] == pytest.approx([-0.0025, -0.0025])


def test_shares_are_drawn_in_percentage_points() -> None:
    base = Side(name="base", means={"oracle": 0.25})
    sides = [
        Side(name="a", strength=s, against=0, difference={"oracle": Change(mean=m, low=0, high=m)})
        for s, m in ((0.5, 0.125), (1.0, 0.25))
    ]
    (figure,) = strength_figures(Evaluation(sides=(base, *sides)))
    (trace,) = figure.traces
    assert trace["y"] == [0.0, 12.5, 25.0]
    assert trace["error_y"]["arrayminus"] == [0.0, 12.5, 25.0]
    assert trace["hovertemplate"].endswith(" points")
    assert figure.layout["yaxis"]["title"]["text"] == "change in percentage points"
    assert "0.5: 12.5; 1: 25" in figure.text

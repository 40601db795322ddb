import pytest

from reward_tuning.report.figures import (
    MOST_POINTS,
    Figure,
    axes,
    intervals,
    level,
    line,
    moment,
    step_layout,
    with_marks,
)


def test_names_are_shown_and_not_read_as_markup() -> None:
    assert line([1], [2], "<b>a</b> & b")["name"] == "&lt;b&gt;a&lt;/b&gt; &amp; b"
    assert moment(1, "<i>")[1]["text"] == level(1, "<i>")[1]["text"] == "&lt;i&gt;"


def test_long_lines_are_thinned_evenly() -> None:
    count = 4 * MOST_POINTS + 1
    trace = line(range(count), range(count), "long")
    assert len(trace["x"]) <= MOST_POINTS
    assert trace["x"] == trace["y"]
    assert {b - a for a, b in zip(trace["x"], trace["x"][1:], strict=False)} == {5}


def test_intervals_are_distances_from_the_mean() -> None:
    trace = intervals([1, 2], [0.5, None], [0.4, None], [0.7, None], "a")
    assert trace["error_y"]["array"] == [pytest.approx(0.2), None]
    assert trace["error_y"]["arrayminus"] == [pytest.approx(0.1), None]


def test_marks_become_shapes_and_labels() -> None:
    layout = with_marks(axes("x", "y"), [level(0.8, "low"), moment(10, "chosen")])
    assert [shape["y0"] for shape in layout["shapes"]] == [0.8, 0]
    assert [label["text"] for label in layout["annotations"]] == ["low", "chosen"]
    assert layout["xaxis"]["title"]["text"] == "x"


def test_a_figure_without_a_description_is_described_by_its_title() -> None:
    assert Figure("title", "", []).record()["text"] == "title"


def test_the_axis_of_steps_ends_at_the_last_and_labels_point_inwards() -> None:
    marks = [moment(50, "chosen"), moment(10, "motion: warn"), moment(20, "motion: warn")]
    layout = step_layout([0, 20, 60], "ratio", [level(0.8, "threshold 0.8")], marks)
    assert layout["xaxis"]["range"] == pytest.approx([-2.4, 62.4])
    assert [shape["x0"] for shape in layout["shapes"]] == [0, 50, 10, 20]
    threshold, warned, chosen = layout["annotations"]  # one label for the rule that fired twice
    assert (threshold["y"], threshold["yanchor"]) == (0.8, "bottom")
    assert (warned["x"], warned["xanchor"], warned["yshift"]) == (10, "left", 0)
    assert (chosen["x"], chosen["xanchor"], chosen["yshift"]) == (50, "right", 14)
    assert {(one["y"], one["yanchor"]) for one in (warned, chosen)} == {(1, "bottom")}


def test_a_run_of_one_step_has_an_axis() -> None:
    low, high = step_layout([1], "score")["xaxis"]["range"]
    assert low < 1 < high

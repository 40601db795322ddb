import pytest

from reward_tuning.report.figures import (
    MOST_POINTS,
    Figure,
    axes,
    intervals,
    level,
    line,
    moment,
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

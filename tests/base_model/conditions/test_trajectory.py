import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from base_model.conditions.trajectory import Track, heat_maps, read_points_file, track_pixels
from base_model.errors import GeneratorError
from tests.goldens import load_golden

HEIGHT, WIDTH, FRAMES = 80, 104, 9


def track(points: Any, times: Any = None, coordinates: Any = "pixel") -> Track:
    return Track(
        "ball",
        np.array(points, dtype=np.float64),
        None if times is None else np.array(times),
        coordinates,
    )


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def golden_points() -> list[list[dict[str, int]]]:
    points = load_golden("controls").tensors["trajectory.points"].tolist()
    return [[{"x": x, "y": y} for x, y in one] for one in points]


@pytest.mark.parametrize(("count", "name"), [(1, "one"), (2, "two")])
def test_heat_maps_are_the_published_ones(tmp_path: Path, count: int, name: str) -> None:
    expected = load_golden("controls").tensors[f"trajectory.{name}"].numpy().astype(int)
    tracks = read_points_file(write(tmp_path / "points.json", golden_points()[:count]))
    clip = heat_maps(tracks, FRAMES, HEIGHT, WIDTH)
    assert clip.dtype == np.uint8
    assert np.abs(clip.astype(int) - expected).max() <= 1


def test_all_forms_of_a_file_say_the_same(tmp_path: Path) -> None:
    points = golden_points()[0]
    forms = [
        points,
        [points],
        {"objects": [{"name": "0", "points": points}]},
        {"coordinates": "pixel", "objects": [{"points": points}]},
        {
            "coordinates": "relative",
            "objects": [{"points": [{"x": p["x"] / 103, "y": p["y"] / 79} for p in points]}],
        },
        {"objects": [{"points": [{**p, "frame": i} for i, p in enumerate(points)]}]},
        [points[0], points[-1]],  # the golden points are on one line, evenly spaced
    ]
    clips = [
        heat_maps(read_points_file(write(tmp_path / "p.json", form)), FRAMES, HEIGHT, WIDTH)
        for form in forms
    ]
    for clip in clips[1:]:
        assert np.array_equal(clip, clips[0])


def test_points_between_given_frames() -> None:
    """At rest until frame 2, 10 pixels a frame to frame 4, 1 a frame to 6, then at rest."""
    path = track_pixels(track([[10, 20], [30, 20], [32, 22]], [2, 4, 6]), 9, HEIGHT, WIDTH)
    assert path[:, 0].tolist() == [10, 10, 10, 20, 30, 31, 32, 32, 32]
    assert path[:, 1].tolist() == [20, 20, 20, 20, 20, 21, 22, 22, 22]


def test_points_without_frames_are_spread_over_the_clip() -> None:
    path = track_pixels(track([[0, 0], [40, 8], [40, 0]]), 9, HEIGHT, WIDTH)
    assert path[:, 0].tolist() == [0, 10, 20, 30, 40, 40, 40, 40, 40]
    assert path[:, 1].tolist() == [0, 2, 4, 6, 8, 6, 4, 2, 0]


def test_the_corners_are_inside() -> None:
    corners = track([[0, 0], [1, 1]], [0, 8], "relative")
    assert track_pixels(corners, 9, 64, 96)[[0, -1]].tolist() == [[0, 0], [95, 63]]
    assert np.array_equal(
        track_pixels(track([[0, 0], [95, 63]], [0, 8]), 9, 64, 96),
        track_pixels(corners, 9, 64, 96),
    )


@pytest.mark.parametrize(("height", "width", "radius"), [(720, 1280, 50), (64, 64, 3)])
def test_a_spot_is_as_wide_as_the_rule_says(height: int, width: int, radius: int) -> None:
    """Brightest where the object is, nothing beyond the radius, Gaussian between."""
    x, y = width // 2, height // 2
    (picture,) = heat_maps([track([[x, y]])], 1, height, width).astype(float)
    rows, columns = np.nonzero(picture)
    assert abs(np.array([rows.min(), rows.max()]) - y).max() <= radius
    assert abs(np.array([columns.min(), columns.max()]) - x).max() <= radius
    assert abs(np.average(columns, weights=picture[rows, columns]) - x) <= 0.5
    if radius == 50:  # 200 pixels scaled to 100: standard deviation 20
        assert picture[y, x] == pytest.approx(255, abs=2)
        assert picture[y, x + 20] == pytest.approx(255 * np.exp(-0.5), abs=5)
        assert picture[y, x - 40] == pytest.approx(255 * np.exp(-2), abs=5)


def test_the_larger_level_of_two_objects() -> None:
    one, two = track([[30, 30]]), track([[33, 30]])
    both = heat_maps([one, two], 1, 64, 64)
    apart = [heat_maps([t], 1, 64, 64) for t in (one, two)]
    assert np.array_equal(both, np.maximum(*apart))


@pytest.mark.parametrize(
    ("points", "times", "coordinates", "message"),
    [
        ([[104, 5]], [3], "pixel", r"frame 3: the point \(104, 5\) .* x runs from 0 to 103"),
        ([[5, 5], [5, 80]], None, "pixel", r"frame 8: the point \(5, 80\) .* y from 0 to 79"),
        ([[-1, 5]], [0], "pixel", r"frame 0: the point \(-1, 5\) is outside"),
        ([[0.5, 1.2]], [0], "relative", r"\(0\.5, 1\.2\) .* in relative coordinates x runs"),
        ([[5, 5]], [9], "pixel", r"a point at frame 9; the clip of 9 frames has 0 to 8"),
        ([[5, 5]], [-1], "pixel", r"a point at frame -1"),
        ([[5, 5]] * 10, None, "pixel", r"10 points for a clip of 9 frames"),
    ],
)
def test_a_point_outside_is_named(points: Any, times: Any, coordinates: Any, message: str) -> None:
    with pytest.raises(GeneratorError, match=r"run\.json, object 'ball'.*" + message):
        heat_maps([track(points, times, coordinates)], FRAMES, HEIGHT, WIDTH, "run.json")


def test_a_clip_too_small_for_spots() -> None:
    assert heat_maps([track([[20, 20]])], 1, 48, 48).max() > 0
    with pytest.raises(GeneratorError, match="2 pixels wide, and below 4 none is drawn"):
        heat_maps([track([[5, 5]])], 1, 32, 32)


GOOD = {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no objects"),
        ({}, "no objects"),
        ("points", "no points"),
        ({"objects": []}, "no objects"),
        ({"object": []}, "unknown key 'object'"),
        ({"coordinates": "percent", "objects": [{"points": [GOOD]}]}, "'percent'; allowed: pixel"),
        ({"objects": [{"points": []}]}, "object '0': no points"),
        ({"objects": [{"name": "cat"}]}, "object 'cat': no points"),
        ({"objects": [[GOOD]]}, "object '0': an object has 'points'"),
        ({"objects": [{"points": [GOOD], "colour": 1}]}, "an object has 'points'"),
        ([GOOD, {"x": 1}], "point 1: got {'x': 1}; a point is"),
        ([GOOD, {"x": 1, "y": 2, "z": 3}], "point 1: got"),
        ([GOOD, [1, 2]], r"point 1: got \[1, 2\]"),
        ([{"x": "1", "y": 2}], "point 0: 'x' is '1', not a finite number"),
        ([{"x": float("nan"), "y": 2}], "'x' is nan, not a finite number"),
        ([{**GOOD, "frame": 0.5}], "'frame' is 0.5, not a whole number"),
        ([{**GOOD, "frame": 0}, GOOD], "point 1: 'frame' is missing"),
        ([{**GOOD, "frame": 4}, {**GOOD, "frame": 4}], r"frames \[4, 4\] must increase"),
    ],
)
def test_a_broken_file_is_told(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path / "points.json", content)
    with pytest.raises(GeneratorError, match=rf"points\.json.*{message}"):
        read_points_file(path)


def test_no_file_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match=r"none\.json: the points file cannot be read"):
        read_points_file(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text('[{"x": 1')
    with pytest.raises(GeneratorError, match=r"broken\.json: the points file is no valid JSON"):
        read_points_file(tmp_path / "broken.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"x": 1, "y": %s}]' % ("9" * 25), "'y' is 9999.*not a finite number below 2"),
        ('[{"x": 1, "y": 1, "frame": 18446744073709551616}]', "'frame' is 18446744073709551616"),
        ('[{"x": 1, "y": 1, "frame": -9223372036854775809}]', "not a whole number below 2"),
        ('[{"x": 1, "y": 1e400}]', "'y' is inf, not a finite number"),
        ('[{"x": NaN, "y": 1}]', "'x' is nan, not a finite number"),
        ('[{"x": 1, "y": %s}]' % ("9" * 5000), "no valid JSON: Exceeds the limit"),
        ("[" * 100_000, "nested too deeply"),
        ('{"objects": %s}' % ('{"a":' * 100_000), "nested too deeply"),
        ('{"objects": [{"name": "%s", "points": []}]}' % ("a" * 5000), "object 'aaaa"),
        ('{"objects": [{"name": {"a": 1}, "points": []}]}', "'name' is {'a': 1}; give a text"),
        ('{"objects": [{"name": "\\ud83d", "points": []}]}', "object '.ud83d': no points"),
        ('{"coordinates": ["pixel"], "objects": []}', "'coordinates' is .'pixel'.; allowed: pixel"),
    ],
)
def test_values_that_once_ended_in_a_traceback(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(GeneratorError, match=message) as caught:
        read_points_file(tmp_path / "p.json")
    assert len(str(caught.value)) < 600
    str(caught.value).encode()  # a terminal can show it


@pytest.mark.parametrize("name", ["a\0b.json", "\ud83d.json", "x" * 300 + ".json"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(GeneratorError, match="points file"):
        read_points_file(tmp_path / name)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('\ufeff[{"x": 1, "y": 2}]', encoding="utf-8")
    (found,) = read_points_file(tmp_path / "p.json")
    assert found.points.tolist() == [[1, 2]]

"""Conditions as files and words: what is given, what it becomes, and what excludes what."""

from pathlib import Path
from typing import Any

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.inputs.condition_files import (
    NO_CONDITION,
    ConditionFiles,
    resolve_condition_files,
)


def test_only_what_differs_from_nothing_is_given() -> None:
    assert NO_CONDITION.given == {}
    assert NO_CONDITION.paths == {}
    files = ConditionFiles(extend="/a.mp4", keep_frames=3, camera="pan left", camera_speed=1.0)
    assert files.given == {"extend": "/a.mp4", "keep_frames": 3, "camera": "pan left"}
    assert files.paths == {"extend": (Path("/a.mp4"),)}
    assert files.described() == "extend /a.mp4, keep frames 3, camera pan left"
    controls = ConditionFiles(control=("/a.mp4", "/b.mp4"), camera="/poses.TXT")
    assert controls.paths == {
        "control": (Path("/a.mp4"), Path("/b.mp4")),
        "camera": (Path("/poses.TXT"),),
    }


def test_inputs_are_those_that_the_generator_gets() -> None:
    files = ConditionFiles(extend="/a.mp4", trajectory="/p.json", control=("/b.mp4",))
    assert files.inputs == ("video", "mask", "control")
    assert ConditionFiles(camera="pan left", camera_speed=2.0).inputs == ("camera",)


def test_paths_start_from_the_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.mp4"):
        (tmp_path / "in" / name).touch()
    values = {
        "image": "in/a.png",
        "control": ["in/../in/b.mp4"],
        "camera": "pan left",
        "mask": None,
    }
    folder = tmp_path.resolve() / "in"
    assert resolve_condition_files(values | {"mask": None}, tmp_path) == ConditionFiles(
        image=str(folder / "a.png"), control=(str(folder / "b.mp4"),), camera="pan left"
    )
    with pytest.raises(TuningError, match=r"^end image .*gone\.png: no such file"):
        resolve_condition_files({"end_image": "gone.png"}, tmp_path)
    with pytest.raises(TuningError, match="too long for a file name"):
        resolve_condition_files({"image": "a" * 300}, tmp_path)


@pytest.mark.parametrize(
    ("given", "strength", "message"),
    [
        ({"mask": "/m.png"}, 0.7, "mask needs video, which is not given"),
        ({"keep_frames": 2}, 1.0, "keep frames needs extend"),
        ({"control_type": "canny"}, 1.0, "control type needs control"),
        ({"camera_speed": 2.0}, 1.0, "camera speed needs camera"),
        ({"camera": "/p.txt", "camera_speed": 2.0}, 1.0, "a pose file, which sets its own speed"),
        ({"video": "/a.mp4", "extend": "/b.mp4"}, 0.7, "video and extend are both given"),
        ({"video": "/a.mp4"}, 1.0, "with strength 1 and no mask nothing of it remains"),
        ({"image": "/a.png"}, 0.7, "strength 0.7: below 1, sampling starts from a video"),
        ({}, 0.0, "strength 0; allowed: above 0, up to 1"),
        ({}, 1.1, "strength 1.1; allowed"),
    ],
)
def test_parts_that_do_not_go_together(
    given: dict[str, Any], strength: float, message: str
) -> None:
    with pytest.raises(TuningError) as caught:
        ConditionFiles(**given).check(strength)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "strength"),
    [
        ({}, 1.0),
        ({"video": "/a.mp4"}, 0.7),
        ({"video": "/a.mp4", "mask": "/m.png"}, 1.0),
        ({"extend": "/a.mp4", "keep_frames": 2, "image": "/a.png"}, 1.0),
        ({"camera": "pan left", "camera_speed": 2.0}, 1.0),
    ],
)
def test_parts_that_go_together(given: dict[str, Any], strength: float) -> None:
    ConditionFiles(**given).check(strength)

from pathlib import Path

import numpy as np
import pytest

from base_model.conditions.camera import (
    camera_to_first,
    plucker_rays,
    read_pose_file,
    write_pose_file,
)
from base_model.conditions.camera_motions import (
    MOTIONS,
    motion_matrices,
    motion_poses,
    parse_motion,
)
from base_model.errors import GeneratorError
from tests.goldens import load_golden

SPEED = 0.7  # of the golden motions
GOLDEN = {
    "roll clockwise": "cw",
    "pan left": "pan_left",
    "pan up": "pan_up",
    "zoom in": "zoom_in",
    "pan left then zoom in": "pan_left_then_zoom_in",
}


@pytest.mark.parametrize("text", GOLDEN)
def test_paths_are_the_published_ones(text: str) -> None:
    expected = load_golden("controls").tensors[f"camera_motion.{GOLDEN[text]}"].numpy()
    matrices = motion_matrices(text, len(expected), SPEED)
    assert np.abs(matrices - expected).max() < 1e-9


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("pan left", "pan right"),
        ("pan up", "pan down"),
        ("zoom in", "zoom out"),
        ("roll clockwise", "roll anticlockwise"),
    ],
)
def test_opposites_undo_each_other(one: str, other: str) -> None:
    both = motion_matrices(f"{one} and {other}", 5)
    assert np.array_equal(both, np.tile(np.eye(4)[:3], (5, 1, 1)))
    assert np.array_equal(motion_matrices("static", 5), both)
    assert not np.array_equal(motion_matrices(one, 5), both)


@pytest.mark.parametrize(
    ("text", "axis", "sign"),
    [
        ("pan left", 0, -1),
        ("pan right", 0, 1),
        ("pan up", 1, -1),
        ("pan down", 1, 1),
        ("zoom in", 2, 1),
        ("zoom out", 2, -1),
    ],
)
def test_the_camera_moves_where_the_word_says(text: str, axis: int, sign: int) -> None:
    """x right, y down, z forward; the camera's place is column 3 of camera to world."""
    places = camera_to_first(motion_poses(text, 9))[:, :3, 3]
    assert (np.diff(places[:, axis]) * sign > 0).all()
    assert np.abs(np.delete(places, axis, axis=1)).max() == 0


def test_a_clockwise_camera_sees_the_world_turn_the_other_way() -> None:
    """y is down, so a point on the right goes up (negative y) when the world turns left round."""
    seen = motion_matrices("roll clockwise", 9)[-1] @ [1, 0, 5, 1]
    assert seen[1] < 0 < seen[0]


def test_a_diagonal_is_the_sum_of_two_pans() -> None:
    diagonal = motion_matrices("pan left and up", 7, 2.0)
    assert np.array_equal(diagonal, motion_matrices("Pan  LEFT and pan up", 7, 2.0))
    left, up = (motion_matrices(name, 7, 2.0)[..., 3] for name in ("pan left", "pan up"))
    np.testing.assert_allclose(diagonal[..., 3], left + up)
    np.testing.assert_allclose(diagonal[-1, :, 3], [6 / 7 * 3, 6 / 7 * 3, 0])


def test_a_chain_goes_on_in_the_camera_as_it_is_turned() -> None:
    """After a quarter turn clockwise (speed 3: pi/2 at frame 2 of 4) left is where up was."""
    path = motion_matrices("roll clockwise then pan left", 8, 2.0)
    quarter = path[3, :3, :3]
    angle = 3 / 4 * 2 * np.pi / 3
    np.testing.assert_allclose(quarter[:2, :2], [[0, 1], [-1, 0]], atol=1e-12)
    assert angle == pytest.approx(np.pi / 2)
    place = -path[-1, :, :3].T @ path[-1, :, 3]
    np.testing.assert_allclose(place, [0, -3 / 4 * 2 * 1.5, 0], atol=1e-12)


def test_parts_share_the_frames() -> None:
    path = motion_matrices("pan left then pan up then zoom in", 49)
    moved = np.abs(np.diff(path[..., 3], axis=0)).argmax(axis=1)
    still = np.abs(np.diff(path[..., 3], axis=0)).max(axis=1) == 0
    assert np.flatnonzero(still).tolist() == [16, 32]  # 17, 16 and 16 frames
    assert moved[~still].tolist() == [0] * 16 + [1] * 15 + [2] * 15


def test_a_motion_as_a_pose_file(tmp_path: Path) -> None:
    poses = motion_poses("pan right and down then roll anticlockwise", 13, 0.5)
    write_pose_file(tmp_path / "motion.txt", poses)
    back = read_pose_file(tmp_path / "motion.txt")
    assert np.array_equal(back, poses)
    rays = plucker_rays(back, 16, 24)
    assert rays.shape == (13, 16, 24, 6)
    assert rays.isfinite().all()
    assert poses[0, 1:5].tolist() == [0.474812461, 0.844111024, 0.5, 0.5]


@pytest.mark.parametrize(
    "text", ["fly", "pan", "left", "pan left and", "pan left then", "", "zoom in and left"]
)
def test_what_is_no_motion_is_told_with_what_is_allowed(text: str) -> None:
    with pytest.raises(GeneratorError, match=r"not a motion\. Allowed: static, pan left") as error:
        parse_motion(text)
    assert repr(text) in str(error.value)
    assert all(name in str(error.value) for name in MOTIONS)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_speed_is_above_zero(speed: float) -> None:
    with pytest.raises(GeneratorError, match="must be above 0"):
        motion_matrices("pan left", 9, speed)


def test_more_parts_than_frames() -> None:
    with pytest.raises(GeneratorError, match="2 parts and the clip 1 frames"):
        motion_matrices("pan left then zoom in", 1)

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from base_model.conditions.camera import (
    POSE_RATIO,
    camera_to_first,
    clip_poses,
    pixel_intrinsics,
    plucker_rays,
    pose_table,
    read_pose_file,
    write_pose_file,
)
from base_model.errors import GeneratorError
from tests.goldens import load_golden

IDENTITY = np.eye(4)[:3]
GOOD = "0 0.5 0.9 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0"


def turned(degrees: float) -> np.ndarray:
    """World to camera of a camera at the origin that was turned to its right."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, 0, -s, 0], [0, 1, 0, 0], [s, 0, c, 0]])


@pytest.mark.parametrize("shape", ["landscape", "portrait", "wide"])
def test_rays_are_the_published_ones(shape: str) -> None:
    tensors = load_golden("controls").tensors
    expected = tensors[f"plucker.{shape}"]
    rays = plucker_rays(tensors[f"poses.{shape}"].numpy(), *expected.shape[1:3])
    assert rays.dtype == torch.float32
    assert (rays - expected).abs().max() < 1e-5


def test_a_camera_at_rest_by_hand() -> None:
    """2 x 4 pixels is wider than 16:9: fx = 0.5 x 4 = 2, fy = 1 x 4 / (16/9) = 2.25."""
    poses = pose_table(np.stack([IDENTITY]), (0.5, 1.0, 0.5, 0.5))
    rays = plucker_rays(poses, 2, 4)[0].double()
    slope_x, slope_y = (3.5 - 2) / 2, (1.5 - 1) / 2.25
    corner = torch.tensor([slope_x, slope_y, 1.0], dtype=torch.float64)
    assert torch.equal(rays[..., :3], torch.zeros(2, 4, 3, dtype=torch.float64))
    torch.testing.assert_close(rays[1, 3, 3:], corner / corner.norm(), atol=1e-7, rtol=0)
    mirrored = corner * torch.tensor([-1.0, -1.0, 1.0])
    torch.testing.assert_close(rays[0, 0, 3:], mirrored / corner.norm(), atol=1e-7, rtol=0)


def test_a_turn_to_the_right_and_a_step_by_hand() -> None:
    """After a turn of 90 degrees the middle ray is +x; from (0, 0, 2) its moment is (0, 2, 0)."""
    moved = turned(90)
    moved[:, 3] = -moved[:, :3] @ [0, 0, 2]
    rays = plucker_rays(pose_table(np.stack([IDENTITY, moved])), 3, 3)
    torch.testing.assert_close(
        rays[:, 1, 1],
        torch.tensor([[0.0, 0, 0, 0, 0, 1], [0, 2, 0, 1, 0, 0]]),
        atol=1e-7,
        rtol=0,
    )


def test_the_first_camera_is_the_world() -> None:
    """Moving all cameras by one rigid motion changes nothing."""
    poses = load_golden("controls").tensors["poses.wide"].numpy().copy()
    before = plucker_rays(poses, 4, 6)
    matrices = np.tile(np.eye(4), (len(poses), 1, 1))
    matrices[:, :3] = poses[:, 7:].reshape(-1, 3, 4)
    motion = np.eye(4)
    motion[:3] = turned(33)
    motion[:3, 3] = [1, -2, 3]
    poses[:, 7:] = (matrices @ motion)[:, :3].reshape(-1, 12)
    torch.testing.assert_close(plucker_rays(poses, 4, 6), before, atol=1e-6, rtol=0)
    assert np.array_equal(camera_to_first(poses)[0], np.eye(4))


def test_three_frames_are_the_first_three_of_nine() -> None:
    """A cross product without an axis takes the first one of length 3: the frames'."""
    tensors = load_golden("controls").tensors
    poses, expected = tensors["poses.portrait"].numpy(), tensors["plucker.portrait"]
    rays = plucker_rays(poses[:3], *expected.shape[1:3])
    assert (rays - expected[:3]).abs().max() < 1e-5
    assert (plucker_rays(poses[:3], 3, 3) - plucker_rays(poses, 3, 3)[:3]).abs().max() == 0


def test_moment_and_direction_are_perpendicular_and_finite() -> None:
    poses = load_golden("controls").tensors["poses.landscape"].numpy()
    for height, width in ((1, 1), (3, 3), (16, 40), (40, 16)):
        moment, direction = plucker_rays(poses, height, width).split(3, dim=-1)
        assert torch.isfinite(moment).all()
        torch.testing.assert_close(direction.norm(dim=-1), torch.ones(9, height, width))
        assert (moment * direction).sum(-1).abs().max() < 1e-6


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 96), (90, 160)])
def test_pixels_stay_square_when_the_picture_covers_the_clip(height: int, width: int) -> None:
    """fx/fy in pixels is that of the 16:9 picture, whatever the clip's shape."""
    poses = pose_table(np.stack([IDENTITY]), (0.5, 0.9, 0.5, 0.4))
    fx, fy, cx, cy = pixel_intrinsics(poses, height, width)[0]
    assert fx / fy == pytest.approx(0.5 * 1280 / (0.9 * 720))
    scale = max(width / 1280, height / 720)
    assert fx == pytest.approx(0.5 * 1280 * scale)
    assert (cx, cy) == (0.5 * width, pytest.approx(0.4 * height))
    assert pytest.approx(16 / 9) == POSE_RATIO


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    poses = load_golden("controls").tensors["poses.landscape"].numpy()
    write_pose_file(tmp_path / "poses.txt", poses)
    assert np.array_equal(read_pose_file(tmp_path / "poses.txt"), poses)


@pytest.mark.parametrize("head", ["", "https://example.org/watch?v=1\n", "\n\nmade by hand\n"])
def test_a_header_is_optional(tmp_path: Path, head: str) -> None:
    (tmp_path / "poses.txt").write_text(f"{head}{GOOD}\n\n{GOOD}\n")
    assert read_pose_file(tmp_path / "poses.txt").shape == (2, 19)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD, GOOD[2:]], r"poses\.txt, line 3: 18 columns; a pose has 19"),
        ([GOOD + " 1"], r"poses\.txt, line 2: 20 columns"),
        ([GOOD, GOOD.replace("0.9", "wide")], r"line 3, column 3: 'wide' is not a finite number"),
        ([GOOD.replace("0.9", "nan")], r"line 2, column 3: 'nan' is not a finite"),
        ([GOOD.replace("0.9", "-0.9")], r"line 2: focal lengths 0.5 and -0.9 .* above 0"),
        ([GOOD.replace("0 1 0 0 0", "0 2 0 0 0")], r"line 2: columns 8-10, .* a rotation"),
        ([GOOD.replace("0.9", "1_0")], r"column 3: '1_0' is not a finite number"),
        ([GOOD.replace("0.9", "1e200")], r"column 3: 1e200 cannot be a share, rotation"),
        ([GOOD.replace("0 1 0 0 0", "0 1e300 0 0 0")], r"column 8: 1e300 cannot be a share"),
        ([GOOD.replace("0.9", "9" * 5000)], r"column 3: '9{60}' is not a finite number"),
        ([], r"poses\.txt: the pose file holds no pose"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, rows: list[str], message: str) -> None:
    (tmp_path / "poses.txt").write_text("\n".join(["header", *rows]))
    with pytest.raises(GeneratorError, match=message):
        read_pose_file(tmp_path / "poses.txt")


@pytest.mark.parametrize("name", ["a\0b.txt", "\ud83d.txt", "x" * 300 + ".txt"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(GeneratorError, match=r"(not a valid file name|cannot be read)"):
        read_pose_file(tmp_path / name)


def test_a_timestamp_may_count_microseconds(tmp_path: Path) -> None:
    (tmp_path / "poses.txt").write_text("52553000000" + GOOD[1:])
    assert read_pose_file(tmp_path / "poses.txt")[0, 0] == 52553000000


def test_a_mirror_is_no_rotation(tmp_path: Path) -> None:
    (tmp_path / "poses.txt").write_text(GOOD.replace("0 0 1 0 0 0 0 1 0", "0 0 1 0 0 0 0 -1 0"))
    with pytest.raises(GeneratorError, match=r"line 1: .* det R = -1"):
        read_pose_file(tmp_path / "poses.txt")


def test_no_file_an_empty_one_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match=r"none\.txt: the pose file cannot be read"):
        read_pose_file(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(GeneratorError, match=r"empty\.txt: the pose file holds no pose"):
        read_pose_file(tmp_path / "empty.txt")
    (tmp_path / "clip.mp4").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GeneratorError, match=r"clip\.mp4: a pose file must be UTF-8 text"):
        read_pose_file(tmp_path / "clip.mp4")


def test_a_header_that_would_be_read_as_a_pose_is_refused(tmp_path: Path) -> None:
    poses = pose_table(np.stack([IDENTITY]))
    for header in ("", "0 1 2", "two\nlines"):
        with pytest.raises(GeneratorError, match="must be one line that starts with a word"):
            write_pose_file(tmp_path / "poses.txt", poses, header)
    with pytest.raises(GeneratorError, match="pose 0: columns 8-10"):
        write_pose_file(tmp_path / "poses.txt", pose_table(np.zeros((1, 3, 4))))


def test_every_third_pose_of_a_video_with_24_frames_a_second() -> None:
    poses = pose_table(np.stack([IDENTITY] * 30))
    assert clip_poses(poses, 9, every=3)[:, 0].tolist() == [0, 3, 6, 9, 12, 15, 18, 21, 24]
    assert clip_poses(poses, 9)[:, 0].tolist() == list(range(9))


def test_too_few_poses_for_the_clip() -> None:
    poses = pose_table(np.stack([IDENTITY] * 24))
    message = r"pan\.txt: 24 poses are too few for a clip of 9 frames, which needs 25"
    with pytest.raises(GeneratorError, match=message):
        clip_poses(poses, 9, every=3, source="pan.txt")
    with pytest.raises(GeneratorError, match="every = 0"):
        clip_poses(poses, 9, every=0)

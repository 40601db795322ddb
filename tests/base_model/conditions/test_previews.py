import numpy as np
import pytest
import torch
from torch import Tensor

from base_model.conditions.camera_motions import motion_poses
from base_model.conditions.previews import (
    camera_path_picture,
    camera_path_preview,
    heat_map_preview,
    mask_preview,
)
from base_model.conditions.trajectory import Track, heat_maps
from base_model.errors import GeneratorError
from tests.goldens import load_golden


def spots() -> np.ndarray:
    points = np.array([[10.0, 20.0], [50.0, 20.0]])
    return heat_maps([Track("ball", points, None, "pixel")], 5, 64, 64)


def drawn(pictures: Tensor) -> Tensor:
    """Where a picture is neither white, grey nor a legend: `(f, H, W)`, legend cut off."""
    colourful = pictures.amax(dim=1) - pictures.amin(dim=1) > 0.2
    colourful[..., int(0.75 * pictures.shape[2]) :, : pictures.shape[3] // 3] = False
    return colourful


def middle(mask: Tensor) -> Tensor:
    """Mean x and y of a mask."""
    return mask.nonzero().double().mean(dim=0).flip(0)


def test_spots_over_grey_are_where_the_points_are() -> None:
    clip = heat_map_preview(spots())
    assert clip.shape == (5, 3, 64, 64)
    far = torch.from_numpy(spots() == 0)[:, None].expand_as(clip)
    assert (clip[far] == 0.5).all()
    for i, x in enumerate((10, 20, 30, 40, 50)):
        brightness = clip[i].sum(dim=0)
        y_best, x_best = divmod(int(brightness.argmax()), 64)
        assert abs(x_best - x) <= 1
        assert abs(y_best - 20) <= 1
        assert brightness[20, x] > 2  # white-hot; grey is 1.5


def test_spots_over_a_video_leave_the_rest_as_it_was() -> None:
    frames = torch.rand(5, 3, 64, 64)
    clip = heat_map_preview(spots(), frames)
    far = torch.from_numpy(spots() == 0)[:, None].expand_as(clip)
    assert torch.equal(clip[far], frames[far])
    assert (clip[~far] - frames[~far]).abs().mean() > 0.1
    with pytest.raises(GeneratorError, match="5 frames of 64 x 64 and the video has shape"):
        heat_map_preview(spots(), frames[:4])


def test_a_mask_is_red_inside_and_outlined() -> None:
    frames = torch.full((2, 3, 16, 16), 0.5)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    shown = mask_preview(frames, mask)
    assert torch.equal(shown[..., :4, :], frames[..., :4, :])
    red = torch.tensor([0.95, 0.15, 0.15])
    torch.testing.assert_close(shown[1, :, 8, 8], 0.55 * 0.5 + 0.45 * red)
    torch.testing.assert_close(shown[0, :, 4, 8], red)
    torch.testing.assert_close(mask_preview(frames, mask.expand(2, -1, -1, -1)), shown)
    with pytest.raises(GeneratorError, match=r"The mask has shape \(2, 1, 8, 8\)"):
        mask_preview(frames, torch.zeros(2, 1, 8, 8))


@pytest.mark.parametrize(
    ("text", "across", "down"),
    [
        # Seen from the left behind and above: right is right and nearer, ahead right and farther.
        ("pan left", -1, -1),
        ("pan right", 1, 1),
        ("pan up", 0, -1),
        ("pan down", 0, 1),
        ("zoom in", 1, -1),
        ("zoom out", -1, 1),
    ],
)
def test_the_drawn_camera_goes_the_way_of_the_motion(text: str, across: int, down: int) -> None:
    pictures = camera_path_preview(motion_poses(text, 9), 240, 320)
    assert pictures.shape == (9, 3, 240, 320)
    assert 0 <= pictures.min() <= pictures.max() <= 1
    ahead = middle(drawn(pictures[[-1]])[0]) - middle(drawn(pictures[[0]])[0])
    for moved, sign in zip(ahead.tolist(), (across, down), strict=True):
        # The drawn path pulls the middle of the last picture a little to its side.
        assert moved * sign > 10 if sign else abs(moved) < 10


def test_a_roll_stays_in_its_place_and_turns() -> None:
    pictures = camera_path_preview(motion_poses("roll clockwise", 5), 240, 320)
    first, last = drawn(pictures[[0, -1]])
    assert (middle(first) - middle(last)).norm() < 20
    assert (first & last).sum() < 0.6 * first.sum()


@pytest.mark.parametrize("shape", ["landscape", "portrait", "wide"])
def test_a_whole_path_is_inside_its_picture(shape: str) -> None:
    poses = load_golden("controls").tensors[f"poses.{shape}"].numpy()
    picture = camera_path_picture(poses)
    assert picture.shape == (3, 480, 640)
    mask = drawn(picture[None])[0]
    assert mask.sum() > 3000
    inner = mask.clone()
    inner[24:-24, 32:-32] = False
    assert not inner.any()
    # Early frames are dark, late ones bright.
    assert len(picture[:, mask].T.mul(255).round().unique(dim=0)) > 50


@pytest.mark.parametrize("frames", [1, 9])
def test_a_camera_at_rest_is_drawn_too(frames: int) -> None:
    poses = motion_poses("static", frames)
    assert drawn(camera_path_picture(poses)[None]).sum() > 1000
    clip = camera_path_preview(poses, 120, 160)
    assert len(clip) == frames
    assert clip.isfinite().all()

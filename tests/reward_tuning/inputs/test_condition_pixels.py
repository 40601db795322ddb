"""Files of conditions, read and fitted to the clip's size."""

from pathlib import Path

import numpy as np
import pytest
import torch

from base_model.conditions.trajectory import heat_maps, read_points_file
from base_model.core.kinds import KINDS
from reward_tuning.errors import TuningError
from reward_tuning.files.clips import read_clip
from reward_tuning.files.frame_files import fitted
from reward_tuning.files.pictures import read_picture
from reward_tuning.inputs.condition_files import ConditionFiles
from reward_tuning.inputs.condition_pixels import check_kind, read_condition_pixels
from tests.reward_tuning.kinds import FRAMES, HEIGHT, WIDTH, write_media

SIZE = (FRAMES, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_media(tmp_path_factory.mktemp("media"))


def test_pictures_are_fitted(media: Path) -> None:
    files = ConditionFiles(image=str(media / "start.png"), reference=str(media / "reference.png"))
    inputs = read_condition_pixels(files, SIZE).inputs
    for found, name in ((inputs.image, "start"), (inputs.reference, "reference")):
        picture = read_picture(media / f"{name}.png")[None]
        assert found is not None
        assert torch.equal(found, fitted(picture, HEIGHT, WIDTH))
    assert inputs.end_image is inputs.video is inputs.control is inputs.camera is None


def test_a_mask_is_fitted_and_then_binary(media: Path) -> None:
    files = ConditionFiles(video=str(media / "video.mp4"), mask=str(media / "mask.png"))
    inputs = read_condition_pixels(files, SIZE).inputs
    assert inputs.video is not None
    assert inputs.mask is not None
    clip = read_clip(media / "video.mp4")[:FRAMES]
    assert torch.equal(inputs.video[0], fitted(clip, HEIGHT, WIDTH))
    assert set(inputs.mask.unique().tolist()) == {0.0, 1.0}
    # 48 x 96 is scaled by 2/3 and cropped by 8 on each side: column 50 becomes 50 * 2/3 - 8 = 25.3
    assert not inputs.mask[..., :25].any()
    assert inputs.mask[..., 27:].all()


def test_the_kept_frames_of_a_clip_to_extend(media: Path) -> None:
    files = ConditionFiles(extend=str(media / "video.mp4"), keep_frames=2)
    inputs = read_condition_pixels(files, SIZE).inputs
    assert inputs.video is not None
    assert inputs.mask is not None
    clip = fitted(read_clip(media / "video.mp4")[:2], HEIGHT, WIDTH)
    assert torch.equal(inputs.video[0, :2], clip)
    assert not inputs.mask[0, :2].any()
    assert inputs.mask[0, 2:].all()
    with pytest.raises(TuningError, match="5 of its 5 first frames cannot be kept in a clip of 5"):
        read_condition_pixels(ConditionFiles(extend=str(media / "video.mp4")), SIZE)
    with pytest.raises(TuningError, match="a clip of 1 frame cannot extend another"):
        read_condition_pixels(files, (1, HEIGHT, WIDTH))


def test_controls_are_combined_by_the_brightest_value(media: Path) -> None:
    paths = (str(media / "video.mp4"), str(media / "other.mp4"))
    both = read_condition_pixels(ConditionFiles(control=paths), SIZE).inputs.control
    assert both is not None
    one, other = (fitted(read_clip(path)[:FRAMES], HEIGHT, WIDTH) for path in paths)
    assert torch.equal(both[0], torch.maximum(one, other))


def test_a_trajectory_is_drawn_and_kept_for_the_preview(media: Path) -> None:
    files = ConditionFiles(trajectory=str(media / "points.json"))
    found = read_condition_pixels(files, (FRAMES, 48, 48))
    assert found.heat_maps is not None
    assert found.heat_maps.shape == (FRAMES, 48, 48)
    assert found.inputs.control is not None
    levels = torch.from_numpy(found.heat_maps).float() / 255
    assert torch.equal(found.inputs.control[0], levels[:, None].expand(-1, 3, -1, -1))
    points = read_points_file(media / "points.json")
    assert np.array_equal(found.heat_maps, heat_maps(points, FRAMES, 48, 48))
    assert levels.amax() > 0.5


@pytest.mark.parametrize("camera", ["poses.txt", "pan left"])
def test_a_camera_is_a_file_or_words(media: Path, camera: str) -> None:
    name = str(media / camera) if camera.endswith(".txt") else camera
    found = read_condition_pixels(ConditionFiles(camera=name), SIZE)
    assert found.poses is not None
    assert len(found.poses) == FRAMES
    assert found.inputs.camera is not None
    assert found.inputs.camera.shape == (1, 6, FRAMES, HEIGHT, WIDTH)


def test_a_kind_without_channels_for_it_is_named() -> None:
    kinds = {kind.name: kind for kind in KINDS.values()}
    files = ConditionFiles(image="/a.png")
    check_kind(files, kinds["inpaint"])
    with pytest.raises(TuningError, match=r"^image /a\.png: .*does not take the image"):
        check_kind(files, kinds["text-to-video"])

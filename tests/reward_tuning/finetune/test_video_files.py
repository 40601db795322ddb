from pathlib import Path

import pytest
import torch
from PIL import Image

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import read_clip, write_clip
from reward_tuning.finetune.video_files import ClipInfo, probe, read_part
from tests.reward_tuning.finetune.clip_folder import frame_numbers, numbered_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "numbered.mp4"
    write_clip(numbered_clip(15, 32, 48), path)
    return path


def test_length_and_size(clip: Path) -> None:
    assert probe(clip, "video") == ClipInfo(15, 32, 48)


@pytest.mark.parametrize(
    ("start", "count", "stride"), [(0, 5, 1), (0, 5, 3), (2, 5, 3), (14, 1, 1), (9, 3, 2)]
)
def test_a_part_is_every_kth_frame_from_its_start(
    clip: Path, start: int, count: int, stride: int
) -> None:
    found = read_part(clip, "video", start, count, stride)
    assert found.shape == (count, 3, 32, 48)
    assert frame_numbers(found) == list(range(start, 15, stride))[:count]
    assert torch.equal(found, read_clip(clip)[start::stride][:count])  # decoded by another reader


def test_a_picture_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), (255, 0, 51)).save(tmp_path / "a.png")
    assert probe(tmp_path / "a.png", "image") == ClipInfo(1, 10, 20)
    found = read_part(tmp_path / "a.png", "image", 0, 1, 3)
    assert found.shape == (1, 3, 10, 20)
    assert found[0, :, 5, 5].tolist() == pytest.approx([1.0, 0.0, 0.2])


def test_files_that_are_no_videos(clip: Path, tmp_path: Path) -> None:
    content = clip.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 3])
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name, told in (
        ("cut.mp4", "not a video"),
        ("empty.mp4", "not a video"),
        ("no.mp4", "no such"),
    ):
        with pytest.raises(TuningError, match=rf"{name}: {told}"):
            probe(tmp_path / name, "video")
    with pytest.raises(TuningError, match=r"cut\.mp4: not a video"):
        read_part(tmp_path / "cut.mp4", "video", 0, 1, 1)
    with pytest.raises(TuningError, match=r"cut\.mp4"):
        probe(tmp_path / "cut.mp4", "image")


def test_a_file_that_became_shorter(clip: Path) -> None:
    message = "3 frames decoded from 12 on at a stride of 1, but it had 5 when it was checked"
    with pytest.raises(TuningError, match=message):
        read_part(clip, "video", 12, 5, 1)

"""Pixels, control pixels and rays of a batch's clips, against whole files read otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from base_model.conditions.camera import plucker_rays, read_pose_file
from reward_tuning.files.clips import read_clip, write_clip
from reward_tuning.files.frame_files import fitted
from reward_tuning.finetune.batches import ClipBatch
from reward_tuning.finetune.metadata import ClipRow
from reward_tuning.finetune.pixels import PIECE, ClipReader, reference_frame
from reward_tuning.finetune.survey import UsableClip
from reward_tuning.finetune.video_files import ClipInfo
from tests.reward_tuning.kinds import write_media

BATCH = ClipBatch(0, (2, 0), (1, 0), 4, 32, 48)
"""The third clip from frame 1 on, and the first from its start; every second frame."""


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_media(tmp_path_factory.mktemp("media"))


@pytest.fixture
def reader(media: Path) -> ClipReader:
    rows = [("other.mp4", "start.png"), ("short.mp4", None), ("video.mp4", "other.mp4")]
    clips = [
        UsableClip(
            ClipRow(media / file, "a", "video", None if control is None else media / control),
            ClipInfo(9, 64, 96),
        )
        for file, control in rows
    ]
    return ClipReader(clips, stride=2)


def test_every_kth_frame_from_the_start_fitted(reader: ClipReader, media: Path) -> None:
    expected = fitted(read_clip(media / "video.mp4")[1::2], 32, 48)
    assert torch.equal(reader.frames(BATCH, 0), expected)
    assert expected.shape == (4, 3, 32, 48)
    assert torch.equal(
        reader.control(BATCH, 0), fitted(read_clip(media / "other.mp4")[1::2], 32, 48)
    )


def test_a_picture_as_control_and_none(reader: ClipReader) -> None:
    control = reader.control(BATCH, 1)
    assert control is not None
    assert control.shape == (1, 3, 32, 48)
    assert reader.control(ClipBatch(0, (1,), (0,), 1, 32, 48), 0) is None
    assert reader.rays(BATCH, 0) is None


def test_rays_start_with_the_part(media: Path, tmp_path: Path) -> None:
    """Of a camera that accelerates: the rays of a steady one are the same from every start."""
    lines = [f"{i} 0.47 0.84 0.5 0.5 0 0 1 0 0 {0.1 * i * i} 0 1 0 0 0 0 1 0" for i in range(9)]
    poses_file = tmp_path / "poses.txt"
    poses_file.write_text("\n".join(["camera poses", *lines]) + "\n")
    row = ClipRow(media / "video.mp4", "a", "video", poses_file)
    reader = ClipReader([UsableClip(row, ClipInfo(9, 64, 96))], stride=2)
    batch = ClipBatch(0, (0,), (3,), 3, 32, 48)
    poses = read_pose_file(poses_file)[3::2]
    assert torch.equal(reader.rays(batch, 0), plucker_rays(poses, 32, 48).permute(3, 0, 1, 2))
    assert reader.control(batch, 0) is None


def test_the_identity_tells_parts_and_contents_apart(
    reader: ClipReader, media: Path, tmp_path: Path
) -> None:
    def identity(**changes: object) -> str:
        batch = ClipBatch(**{**vars(BATCH), **changes})  # type: ignore[arg-type]
        return str(reader.identity(batch, 0))

    same = identity(number=7, copies=2)  # the place of a batch changes no pixel
    assert identity() == same
    others = {
        identity(starts=(0, 0)),
        identity(frames=3),
        identity(height=16),
        identity(width=32),
        identity(clips=(1, 0)),
        str(reader.identity(BATCH, 0, control=True)),
        str(ClipReader(reader.clips, stride=1).identity(BATCH, 0)),
    }
    assert len(others) == 7
    assert same not in others


@pytest.mark.parametrize("place", [0, 3 * PIECE - 1])
def test_the_identity_sees_head_and_tail_of_a_file(tmp_path: Path, place: int) -> None:
    reader = ClipReader([UsableClip(ClipRow(tmp_path / "a", "", "video"), ClipInfo(9, 1, 1))], 1)
    batch = ClipBatch(0, (0,), (0,), 1, 32, 48)
    content = bytearray(3 * PIECE)
    found = []
    for value in (0, 1):
        content[place] = value
        (tmp_path / "a").write_bytes(content)
        found.append(str(reader.identity(batch, 0)))
    assert found[0] != found[1]


def test_reference_frames() -> None:
    frames = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 2, 2)
    draw = torch.Generator().manual_seed(0)
    assert torch.equal(reference_frame(frames, "first", draw), frames[0])  # type: ignore[arg-type]
    assert reference_frame(frames, "none", draw) is None
    assert reference_frame(frames[:1], "first", draw) is None
    drawn = {float(reference_frame(frames, "random", draw).mean()) for _ in range(80)}  # type: ignore[union-attr]
    assert drawn == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}


def test_a_written_clip_is_read_at_its_own_stride(tmp_path: Path) -> None:
    levels = torch.linspace(0, 1, 9)[:, None, None, None].expand(9, 3, 32, 48)
    write_clip(levels.contiguous(), tmp_path / "ramp.mp4")
    row = ClipRow(tmp_path / "ramp.mp4", "a", "video")
    reader = ClipReader([UsableClip(row, ClipInfo(9, 32, 48))], stride=4)
    found = reader.frames(ClipBatch(0, (0,), (0,), 3, 32, 48), 0).mean(dim=(1, 2, 3))
    assert found.tolist() == pytest.approx([0.0, 0.5, 1.0], abs=0.02)

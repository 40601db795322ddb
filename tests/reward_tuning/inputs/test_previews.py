"""Previews of conditions: one for each part, next to the clip and in its format."""

from pathlib import Path

import torch

from base_model.conditions.camera_motions import motion_poses
from base_model.conditions.conditions import ConditionInputs
from reward_tuning.files.clip_names import PREVIEWS
from reward_tuning.files.clips import read_clip
from reward_tuning.inputs.condition_pixels import ConditionPixels
from reward_tuning.inputs.previews import previews, write_previews


def test_each_part_has_its_preview(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    control, video = torch.rand(2, 1, 5, 3, 16, 24, generator=draw)
    mask = torch.zeros(1, 5, 1, 16, 24)
    mask[..., 12:] = 1
    heat_maps = torch.randint(0, 256, (5, 16, 24), generator=draw, dtype=torch.uint8).numpy()
    inputs = ConditionInputs(control=control, video=video, mask=mask, frames=5)
    pixels = ConditionPixels(inputs, heat_maps, motion_poses("pan left", 5, 1.0))
    found = previews(pixels)
    assert set(found) == set(PREVIEWS)
    assert torch.equal(found["control"], control[0])
    assert torch.equal(found["mask"][..., :12], video[0, ..., :12])  # kept: as it is
    assert not torch.equal(found["mask"][..., 12:], video[0, ..., 12:])
    assert found["heat-map"].shape == (5, 3, 16, 24)
    paths = write_previews(pixels, tmp_path / "dog.gif")
    assert {path.name for path in paths} == {f"dog.{name}.gif" for name in PREVIEWS}
    assert all(len(read_clip(path)) == 5 for path in paths)


def test_a_picture_alone_has_none(tmp_path: Path) -> None:
    pixels = ConditionPixels(ConditionInputs(image=torch.rand(1, 3, 16, 24), frames=5))
    assert previews(pixels) == {}
    assert write_previews(pixels, tmp_path / "a.mp4") == []
    assert list(tmp_path.iterdir()) == []

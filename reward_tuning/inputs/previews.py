"""What was asked, as clips beside the result: heat maps, mask, control clip, camera path."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from base_model.conditions.previews import camera_path_preview, heat_map_preview, mask_preview
from reward_tuning.files.clip_names import preview_path
from reward_tuning.files.clips import write_clip
from reward_tuning.inputs.read_condition import ConditionPixels


def previews(asked: ConditionPixels) -> dict[str, Tensor]:
    """The pictures of a condition.

    Args:
        asked: As read.

    Returns:
        Name (of `clip_names.PREVIEWS`) to `(f, 3, H, W)` in [0, 1], for what the
        condition has. A camera's has its own size.
    """
    found = {}
    inputs = asked.inputs
    if asked.heat_maps is not None:
        found["heat-map"] = heat_map_preview(asked.heat_maps)
    if inputs.control is not None:
        found["control"] = inputs.control[0]
    if inputs.video is not None and inputs.mask is not None:
        found["mask"] = mask_preview(inputs.video[0], inputs.mask[0])
    if asked.poses is not None:
        found["camera"] = camera_path_preview(asked.poses)
    return found


def write_previews(asked: ConditionPixels, clip: Path) -> list[Path]:
    """Write a condition's previews beside its clip, in the clip's format.

    Raises:
        TuningError: The disk is full.
    """
    paths = []
    for name, frames in previews(asked).items():
        paths.append(preview_path(clip, name))
        write_clip(frames, paths[-1])
    return paths

"""Write a condition as clips next to the result: heat maps, mask, control clip, camera path."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from base_model.conditions.previews import camera_path_preview, heat_map_preview, mask_preview
from reward_tuning.files.clip_names import preview_path
from reward_tuning.files.clips import write_clip
from reward_tuning.inputs.condition_pixels import ConditionPixels


def previews(pixels: ConditionPixels) -> dict[str, Tensor]:
    """Return a preview of each part of a condition.

    Returns:
        Name (one of `clip_names.PREVIEWS`) to frames `(f, 3, H, W)` in [0, 1]. The camera's preview
        has its own size.
    """
    found = {}
    inputs = pixels.inputs
    if pixels.heat_maps is not None:
        found["heat-map"] = heat_map_preview(pixels.heat_maps)
    if inputs.control is not None:
        found["control"] = inputs.control[0]
    if inputs.video is not None and inputs.mask is not None:
        found["mask"] = mask_preview(inputs.video[0], inputs.mask[0])
    if pixels.poses is not None:
        found["camera"] = camera_path_preview(pixels.poses)
    return found


def write_previews(pixels: ConditionPixels, clip: Path) -> list[Path]:
    """Write a condition's previews next to its clip, in the clip's format.

    Raises:
        TuningError: A preview cannot be written.
    """
    paths = []
    for name, frames in previews(pixels).items():
        paths.append(preview_path(clip, name))
        write_clip(frames, paths[-1])
    return paths

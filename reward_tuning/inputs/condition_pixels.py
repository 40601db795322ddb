"""Read a condition's files, fitted to a clip's size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from base_model.conditions.camera import Poses, clip_poses, plucker_rays, read_pose_file
from base_model.conditions.camera_motions import motion_poses
from base_model.conditions.conditions import ConditionInputs
from base_model.conditions.inpainting import extended
from base_model.conditions.preprocessors import combine_controls, control_clip
from base_model.conditions.trajectory import heat_maps, read_points_file
from base_model.core.kinds import Kind
from base_model.errors import GeneratorError
from reward_tuning.errors import TuningError
from reward_tuning.files.clips import read_clip
from reward_tuning.files.frame_files import binary_mask, fitted, read_frames, read_mask
from reward_tuning.files.pictures import read_picture
from reward_tuning.inputs.condition_files import ConditionFiles, is_pose_file


@dataclass(frozen=True)
class ConditionPixels:
    """The content of a condition's files.

    Attributes:
        inputs: Inputs of one clip, on the CPU.
        heat_maps: Heat maps `(f, H, W)` uint8 of the trajectory.
        poses: Poses `(f, 19)` of the camera.
        notes: Notes for the user on how files were read.
    """

    inputs: ConditionInputs
    heat_maps: NDArray[np.uint8] | None = None
    poses: Poses | None = None
    notes: tuple[str, ...] = ()


def check_kind(files: ConditionFiles, kind: Kind) -> None:
    """Refuse a condition that a kind of checkpoint has no channels for.

    Raises:
        TuningError: It has none; the message names the kind that takes the condition.
    """
    try:
        kind.require(files.inputs)
    except GeneratorError as error:
        raise TuningError(f"{files.described()}: {error}") from error


def read_condition_pixels(files: ConditionFiles, size: tuple[int, int, int]) -> ConditionPixels:
    """Read a condition's files, fitted to a clip's size.

    Args:
        files: Files that `ConditionFiles.check` has accepted, not empty.
        size: Frames, height and width of the clip.

    Raises:
        TuningError: A file cannot be read, is shorter than the clip, or does not fit another.
        GeneratorError: A pose or points file is not valid, or a camera motion is unknown.
    """
    frames, height, width = size

    def picture(path: str | None) -> Tensor | None:
        return None if path is None else fitted(read_picture(path)[None], height, width)

    video, mask, notes = _video(files, size)
    control, heat_maps = _control(files, size)
    poses, rays = _camera(files, size)
    inputs = ConditionInputs(
        image=picture(files.image),
        end_image=picture(files.end_image),
        video=video,
        mask=mask,
        control=control,
        reference=picture(files.reference),
        camera=rays,
        frames=frames,
    )
    return ConditionPixels(inputs, heat_maps, poses, notes)


def _video(
    files: ConditionFiles, size: tuple[int, int, int]
) -> tuple[Tensor | None, Tensor | None, tuple[str, ...]]:
    """Return the video `(1, f, 3, H, W)`, its mask `(1, f, 1, H, W)` and notes on them."""
    frames, height, width = size
    if files.extend is not None:
        known = read_clip(files.extend, lambda count: range(min(count, frames)))
        keep = len(known) if files.keep_frames is None else files.keep_frames
        if not 1 <= keep <= len(known) or keep >= frames:
            raise TuningError(
                f"extend {files.extend}: {keep} of its {len(known)} first frames cannot be kept in "
                f"a clip of {frames}; keep 1 to {min(len(known), frames - 1)} of them"
                if frames > 1
                else f"extend {files.extend}: a clip of 1 frame cannot extend another"
            )
        return *extended(fitted(known[:keep], height, width)[None], frames), ()
    if files.video is None:
        return None, None, ()
    clip = read_frames(files.video, frames, "video")
    video = fitted(clip, height, width)[None]
    if files.mask is None:
        return video, None, ()
    notes: list[str] = []
    mask = read_mask(files.mask, frames, (clip.shape[2], clip.shape[3]), files.video, notes.append)
    return video, binary_mask(fitted(mask, height, width))[None], tuple(notes)


def _control(
    files: ConditionFiles, size: tuple[int, int, int]
) -> tuple[Tensor | None, NDArray[np.uint8] | None]:
    """Return the control clip `(1, f, 3, H, W)` and the trajectory's heat maps in it."""
    frames, height, width = size
    kind = "video" if files.control_type == "raw" else files.control_type
    clips = [
        control_clip(kind, fitted(read_frames(path, frames, "control video"), height, width))
        for path in files.control
    ]
    levels = None
    if files.trajectory is not None:
        levels = heat_maps(read_points_file(files.trajectory), *size, source=files.trajectory)
        spots = torch.from_numpy(levels).float() / 255
        clips.append(spots[:, None].expand(-1, 3, -1, -1))
    return (combine_controls(clips)[None] if clips else None), levels


def _camera(
    files: ConditionFiles, size: tuple[int, int, int]
) -> tuple[Poses | None, Tensor | None]:
    """Return the camera's pose in each frame and the rays `(1, 6, f, H, W)`."""
    if files.camera is None:
        return None, None
    frames, height, width = size
    if is_pose_file(files.camera):
        poses = clip_poses(read_pose_file(files.camera), frames, source=files.camera)
    else:
        poses = motion_poses(files.camera, frames, files.camera_speed)
    return poses, plucker_rays(poses, height, width).permute(3, 0, 1, 2)[None]

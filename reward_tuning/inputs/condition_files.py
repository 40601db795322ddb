"""What a clip shall follow, as files and words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from reward_tuning.errors import TuningError
from reward_tuning.files.file_names import file_name_fault

POSE_ENDING = ".txt"
_FILES = ("image", "end_image", "video", "mask", "extend", "reference", "trajectory")


@dataclass(frozen=True)
class ConditionFiles:
    """Where the parts of a condition are. Files are absolute paths; nothing given is text alone.

    Attributes:
        image: Picture that the clip starts with.
        end_image: Picture that it ends with.
        video: Clip to be changed.
        mask: White where the video is to be made anew: a picture, or a clip.
        extend: Clip to be gone on with.
        keep_frames: How many first frames of it are kept; None for all.
        control: Control clips, put together by the brightest value of each pixel.
        control_type: How they are made from these files: `canny`, `scribble`, or `raw` for control
            clips that were made elsewhere (`video` means the same).
        reference: Picture of what things look like.
        trajectory: Points file, drawn into the control clip.
        camera: A pose file, or a motion in words.
        camera_speed: Factor on a motion in words.
    """

    image: str | None = None
    end_image: str | None = None
    video: str | None = None
    mask: str | None = None
    extend: str | None = None
    keep_frames: int | None = None
    control: tuple[str, ...] = ()
    control_type: str = "raw"
    reference: str | None = None
    trajectory: str | None = None
    camera: str | None = None
    camera_speed: float = 1.0

    @property
    def given(self) -> dict[str, Any]:
        """Name to value of what differs from nothing."""
        nothing = ConditionFiles()
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: value for k, value in named.items() if value != getattr(nothing, k)}

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of `base_model.conditions.conditions.ConditionInputs` that these files become."""
        became = {"extend": ("video", "mask"), "trajectory": ("control",)}
        settings = {"keep_frames", "control_type", "camera_speed"}
        names = [became.get(name, (name,)) for name in self.given if name not in settings]
        return tuple(dict.fromkeys(name for group in names for name in group))

    @property
    def paths(self) -> dict[str, tuple[Path, ...]]:
        """Name to the files that are to be there."""
        found = {}
        for name, value in self.given.items():
            if name == "control":
                found[name] = tuple(map(Path, value))
            elif name in _FILES or (name == "camera" and is_pose_file(value)):
                found[name] = (Path(value),)
        return found

    def told(self) -> str:
        """As an error says it: `image a.png, camera pan left`."""
        return ", ".join(
            f"{name.replace('_', ' ')} {' '.join(value) if isinstance(value, tuple) else value}"
            for name, value in self.given.items()
        )

    def check(self, strength: float) -> None:
        """Refuse parts that do not go together, before any file is read.

        Args:
            strength: Share of the sampler's steps that is run, from the noised video on.

        Raises:
            TuningError: Names both parts and the rule.
        """
        if not 0.0 < strength <= 1.0:
            raise TuningError(f"strength {strength:g}; allowed: above 0, up to 1")
        given = self.given
        for name, other in (
            ("mask", "video"),
            ("keep_frames", "extend"),
            ("control_type", "control"),
            ("camera_speed", "camera"),
        ):
            if name in given and other not in given:
                raise TuningError(f"{_flag(name)} is for {_flag(other)}, which is not given")
        if {"video", "extend"} <= given.keys():
            raise TuningError("video and extend: give the clip as one of them")
        if "camera_speed" in given and is_pose_file(given["camera"]):
            raise TuningError(
                f"camera {self.camera} is a pose file, whose speed is its own; camera speed is for "
                "motions in words"
            )
        if strength < 1.0 and "video" not in given:
            raise TuningError(
                f"strength {strength:g}: sampling then starts from a video, and none is given"
            )
        if "video" in given and "mask" not in given and strength >= 1.0:
            raise TuningError(
                f"video {self.video}: with strength 1 and no mask nothing of it is left; give a "
                "strength below 1 (0.7 is usual), or a mask"
            )


NOTHING = ConditionFiles()


def is_pose_file(camera: str) -> bool:
    """Whether a camera is given by a file, and not in words."""
    return camera.lower().endswith(POSE_ENDING)


def resolved(values: Mapping[str, Any], folder: Path) -> ConditionFiles:
    """The files that a prompt's keys or a command's options name.

    Args:
        values: Names of `ConditionFiles` to values; None for what is not given.
        folder: That relative paths start from.

    Raises:
        TuningError: A file is not there, or no file has such a name.
    """

    def place(value: str | Path) -> str:
        if fault := file_name_fault(str(value)):
            raise TuningError(f"{str(value)[:60]!a}: {fault}")
        return str((folder / Path(value).expanduser()).resolve())

    found: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        if name == "control":
            found[name] = tuple(place(one) for one in value)
        elif name in _FILES or (name == "camera" and is_pose_file(value)):
            found[name] = place(value)
        else:
            found[name] = value
    files = ConditionFiles(**found)
    for name, paths in files.paths.items():
        for path in paths:
            if not path.is_file():
                raise TuningError(f"{_flag(name)} {path}: no such file")
    return files


def _flag(name: str) -> str:
    return name.replace("_", " ")

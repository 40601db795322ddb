"""The conditions of a clip besides its text, as files and words."""

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
    """Files (absolute paths) and words that condition a clip; the defaults condition nothing.

    Attributes:
        image: First frame of the clip.
        end_image: Last frame of the clip.
        video: Clip to change.
        mask: Picture or clip that is white where the video is generated.
        extend: Clip to continue.
        keep_frames: Number of its first frames to keep; None for all.
        control: Control clips, combined by the brightest value of each pixel.
        control_type: Preprocessor that turns these files into control clips: `canny`, `scribble`,
            or `raw` for files that are control clips already (`video` means the same).
        reference: Picture of the subject's appearance.
        trajectory: Points file, drawn into the control clip.
        camera: Pose file, or a motion in words.
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
        """Name to value of the attributes that differ from their defaults."""
        nothing = ConditionFiles()
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: value for k, value in named.items() if value != getattr(nothing, k)}

    @property
    def inputs(self) -> tuple[str, ...]:
        """Attributes of `ConditionInputs` (`base_model.conditions`) that are made of these."""
        made_of = {"extend": ("video", "mask"), "trajectory": ("control",)}
        settings = {"keep_frames", "control_type", "camera_speed"}
        names = [made_of.get(name, (name,)) for name in self.given if name not in settings]
        return tuple(dict.fromkeys(name for group in names for name in group))

    @property
    def paths(self) -> dict[str, tuple[Path, ...]]:
        """Name to files, of the attributes that name files."""
        found = {}
        for name, value in self.given.items():
            if name == "control":
                found[name] = tuple(map(Path, value))
            elif name in _FILES or (name == "camera" and is_pose_file(value)):
                found[name] = (Path(value),)
        return found

    def described(self) -> str:
        """Return the condition for a message: `image a.png, camera pan left`."""
        return ", ".join(
            f"{name.replace('_', ' ')} {' '.join(value) if isinstance(value, tuple) else value}"
            for name, value in self.given.items()
        )

    def check(self, strength: float) -> None:
        """Refuse parts that exclude or need each other, before any file is read.

        Args:
            strength: Fraction of the sampler's steps that run, starting from the noised video.

        Raises:
            TuningError: Parts exclude each other, or one needs another.
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
                raise TuningError(f"{_words(name)} needs {_words(other)}, which is not given")
        if {"video", "extend"} <= given.keys():
            raise TuningError("video and extend are both given; give the clip as one of them")
        if "camera_speed" in given and is_pose_file(given["camera"]):
            raise TuningError(
                f"camera {self.camera} is a pose file, which sets its own speed; leave out camera "
                "speed, which is for motions in words"
            )
        if strength < 1.0 and "video" not in given:
            raise TuningError(
                f"strength {strength:g}: below 1, sampling starts from a video, and none is given"
            )
        if "video" in given and "mask" not in given and strength >= 1.0:
            raise TuningError(
                f"video {self.video}: with strength 1 and no mask nothing of it remains; give a "
                "strength below 1 (0.7 is usual), or a mask"
            )


NO_CONDITION = ConditionFiles()


def is_pose_file(camera: str) -> bool:
    """Return whether a camera is given by a pose file and not in words."""
    return camera.lower().endswith(POSE_ENDING)


def resolve_condition_files(values: Mapping[str, Any], folder: Path) -> ConditionFiles:
    """Return the condition that a prompt's columns or a command's options give, paths absolute.

    Args:
        values: Attribute of `ConditionFiles` to value; None for one that is not given.
        folder: Folder of relative paths.

    Raises:
        TuningError: A file does not exist, or no file can have such a name.
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
                raise TuningError(f"{_words(name)} {path}: no such file")
    return files


def _words(name: str) -> str:
    return name.replace("_", " ")

"""Conditions of the model, apart from latents and sigma: as channels, and as pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from torch import Tensor

from base_model.errors import GeneratorError


@dataclass(frozen=True)
class TextCondition:
    """Text states of the two guidance branches, each `(b, l, d)`."""

    positive: Tensor
    negative: Tensor


@dataclass(frozen=True)
class Condition:
    """Everything that one model call needs apart from latents and sigma: one guidance branch.

    Attributes:
        text: `(b, l, d)`, or `(1, l, d)` for all samples.
        inpaint_latents: `(b, 17, t, h/8, w/8)`: mask channel (the VAE's scaling factor, 0.7125,
            keeps; 0 generates) and masked clip. None is all zero: generate everything.
        control_latents: `(b, 32 or 22, t, h/8, w/8)`: control clip (16) or camera rays (6), then
            reference image (16). None is all zero: no control, no reference.
    """

    text: Tensor
    inpaint_latents: Tensor | None = None
    control_latents: Tensor | None = None


@dataclass(frozen=True)
class GuidedCondition:
    """The conditions of the two guidance branches."""

    positive: Condition
    negative: Condition


@dataclass(frozen=True)
class ConditionInputs:
    """Inputs that a clip follows in addition to its prompt, as pixels of one batch and one size.

    Attributes:
        image: `(b, 3, H, W)` in [0, 1], the first frame.
        end_image: `(b, 3, H, W)` in [0, 1], the last frame.
        video: `(b, f, 3, H, W)` in [0, 1]. The mask keeps a part of it. Without a mask it is no
            condition of the model: sampling starts from it
            (`base_model.sampling.sample.start_state`).
        mask: `(b, f, 1, H, W)`, or `(b, 1, 1, H, W)` for every frame: generate from 0.5 on, keep
            below.
        control: `(b, f, 3, H, W)` in [0, 1]: edges, depth, pose, heat maps of trajectories.
        reference: `(b, 3, H, W)` in [0, 1], the look of the objects in the clip.
        camera: `(b, 6, f, H, W)`: Plücker rays, moment (3) and direction (3).
        frames: Number of frames f, where only single images are given.
    """

    image: Tensor | None = None
    end_image: Tensor | None = None
    video: Tensor | None = None
    mask: Tensor | None = None
    control: Tensor | None = None
    reference: Tensor | None = None
    camera: Tensor | None = None
    frames: int | None = None

    @property
    def given(self) -> dict[str, Tensor]:
        """Tensors that are not None, by name."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in named if isinstance(value, Tensor)}

    def size(self) -> tuple[int, int, int, int]:
        """Return the batch, frames, height and width of all inputs.

        Raises:
            GeneratorError: An input has a wrong shape, two inputs differ, or the number of frames
                is unknown.
        """
        found: dict[str, tuple[str, int]] = {}
        for name, value in self.given.items():
            for axis, size in _axes(name, value).items():
                other, expected = found.setdefault(axis, (name, size))
                if size != expected:
                    raise GeneratorError(
                        f"The condition's {name} has {axis} {size} and its {other} {expected}. "
                        "All parts of a condition must agree in batch, frames and size."
                    )
        if self.frames is not None:
            name, expected = found.setdefault("frames", ("frames", self.frames))
            if expected != self.frames:
                raise GeneratorError(
                    f"The condition's {name} has {expected} frames, but frames={self.frames}. Cut "
                    "the clip, or omit frames."
                )
        if "frames" not in found:
            raise GeneratorError(
                f"The condition has {', '.join(self.given) or 'no input'}, which does not give the "
                "number of frames. Give frames=."
            )
        return tuple(found[axis][1] for axis in ("batch", "frames", "height", "width"))  # type: ignore[return-value]


_LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "image": ("batch", "3", "height", "width"),
    "end_image": ("batch", "3", "height", "width"),
    "reference": ("batch", "3", "height", "width"),
    "video": ("batch", "frames", "3", "height", "width"),
    "control": ("batch", "frames", "3", "height", "width"),
    "mask": ("batch", "frames", "1", "height", "width"),
    "camera": ("batch", "6", "frames", "height", "width"),
}


def _axes(name: str, value: Tensor) -> dict[str, int]:
    """Return the size of each axis of one input; a mask of one frame fits any number of frames."""
    layout = _LAYOUTS[name]
    fits = value.dim() == len(layout) and all(
        int(axis) == size
        for axis, size in zip(layout, value.shape, strict=True)
        if axis.isdecimal()
    )
    if not fits:
        raise GeneratorError(
            f"The condition's {name} has shape {tuple(value.shape)}; expected "
            f"({', '.join(layout)})."
        )
    axes = {
        axis: size for axis, size in zip(layout, value.shape, strict=True) if not axis.isdecimal()
    }
    if name == "mask" and axes["frames"] == 1:
        del axes["frames"]
    return axes

"""The kinds of checkpoint in the family, in one table, and the conditions that each reads.

A checkpoint's kind is its number of input channels: the noisy latents, then the channels of its
condition. A condition that is not given is zero in its channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from base_model.core.family import FAMILY
from base_model.errors import GeneratorError

LATENTS = FAMILY.latent_channels
INPAINT = "inpaint"


@dataclass(frozen=True)
class Kind:
    """One kind of checkpoint.

    Attributes:
        name: Name in messages.
        ending: End of the published checkpoints' names.
        pipeline: Class of diffusers' pipeline.
        field: Field of `base_model.conditions.conditions.Condition` that is concatenated to the
            noisy latents.
        extra: Channels of that field.
        takes: Inputs of `base_model.conditions.conditions.ConditionInputs`.
    """

    name: str
    ending: str
    pipeline: str
    field: Literal["inpaint_latents", "control_latents"] | None
    extra: int
    takes: tuple[str, ...]

    @property
    def channels(self) -> int:
        """Input channels of the transformer."""
        return LATENTS + self.extra

    @property
    def controlled(self) -> bool:
        """Whether the condition is a control signal: a control clip, camera rays, a reference."""
        return self.field == "control_latents"

    def require(self, given: Iterable[str]) -> None:
        """Refuse inputs that a checkpoint of this kind has no channels for.

        Raises:
            GeneratorError: Names the input, this kind, and the kinds that take it.
        """
        for name in given:
            if name not in self.takes:
                kinds = " or ".join(
                    f"{kind.name} checkpoint ({kind.channels} channels, {FAMILY.name}-*"
                    f"{kind.ending})"
                    for kind in KINDS.values()
                    if name in kind.takes and kind.field is not None
                )
                what = name.replace("_", " ")
                raise GeneratorError(
                    f"The transformer has {self.channels} input channels, the {self.name} kind, "
                    f"which does not take the {what}. Use the {kinds}, or leave the {what} out."
                )


KINDS: Mapping[int, Kind] = {
    kind.channels: kind
    for kind in (
        Kind(
            name="text-to-video",
            ending="",
            pipeline="EasyAnimatePipeline",
            field=None,
            extra=0,
            takes=("video",),  # a video without a mask needs no channel: sampling starts from it
        ),
        Kind(
            name=INPAINT,
            ending="-InP",
            pipeline="EasyAnimateInpaintPipeline",
            field="inpaint_latents",
            extra=1 + LATENTS,  # mask, masked clip
            takes=("image", "end_image", "video", "mask"),
        ),
        Kind(
            name="control",
            ending="-Control",
            pipeline="EasyAnimateControlPipeline",
            field="control_latents",
            extra=LATENTS + LATENTS,  # control clip, reference image
            takes=("control", "reference"),
        ),
        Kind(
            name="camera",
            ending="-Control-Camera",
            pipeline="EasyAnimateControlPipeline",
            field="control_latents",
            extra=FAMILY.camera_channels + LATENTS,  # camera rays, reference image
            takes=("camera", "reference"),
        ),
    )
}
"""Kinds by the input channels of the transformer."""


def kind_of(channels: int) -> Kind:
    """Return the kind with this number of input channels.

    Raises:
        GeneratorError: There is none.
    """
    if channels not in KINDS:
        known = ", ".join(f"{kind.channels} ({kind.name})" for kind in KINDS.values())
        raise GeneratorError(
            f"The transformer takes {channels} input channels; {FAMILY.name} has {known}. Use an "
            f"{FAMILY.name} checkpoint (V5's control model, with 32, is not supported)."
        )
    return KINDS[channels]


def kind_named(name: str) -> Kind:
    """Return the kind with this name."""
    return next(kind for kind in KINDS.values() if kind.name == name)

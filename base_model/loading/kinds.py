"""Which checkpoint takes which condition.

A checkpoint's kind is its number of input channels: the 16 noisy latent channels, then the channels
of its condition. Everything that a condition leaves out is zero there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from base_model.errors import GeneratorError
from base_model.files.weight_files import read_json


@dataclass(frozen=True)
class Kind:
    """What a checkpoint of one number of input channels takes.

    Attributes:
        name: As a person says it.
        channels: Input channels of the transformer.
        ending: Of the published checkpoints' names.
        field: Of :class:`base_model.conditions.conditions.Condition`, with what is concatenated
            behind the noisy latents.
        extra: Channels of that.
        takes: Names of :class:`base_model.conditions.conditions.ConditionInputs`.
    """

    name: str
    channels: int
    ending: str
    field: Literal["inpaint_latents", "control_latents"] | None
    extra: int
    takes: tuple[str, ...]

    def require(self, given: Iterable[str]) -> None:
        """Refuses inputs that a checkpoint of this kind has no channels for.

        Raises:
            GeneratorError: Names the input, this kind, and the kind that takes it.
        """
        for name in given:
            if name not in self.takes:
                kinds = " or ".join(
                    f"{kind.name} checkpoint ({kind.channels} channels, EasyAnimateV5.1-*"
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
        # A video without a mask needs no channel: sampling starts from it.
        Kind("text-to-video", 16, "", None, 0, ("video",)),
        Kind(
            "inpaint",
            33,
            "-InP",
            "inpaint_latents",
            17,  # mask 1, masked clip 16
            ("image", "end_image", "video", "mask"),
        ),
        Kind(
            "control",
            48,
            "-Control",
            "control_latents",
            32,  # control clip 16, reference image 16
            ("control", "reference"),
        ),
        Kind(
            "camera",
            38,
            "-Control-Camera",
            "control_latents",
            22,  # camera rays 6, reference image 16
            ("camera", "reference"),
        ),
    )
}
"""Input channels of the transformer to the kind of checkpoint."""


def kind_of(channels: int) -> Kind:
    """The kind with so many input channels.

    Raises:
        GeneratorError: When there is none.
    """
    if channels not in KINDS:
        raise GeneratorError(
            f"The transformer takes {channels} input channels; known are "
            f"{', '.join(map(str, KINDS))} (text, inpaint, control, camera). "
            "Use an EasyAnimateV5.1 checkpoint (V5's control model, with 32, is not supported)."
        )
    return KINDS[channels]


def kind_of_checkpoint(folder: Path) -> Kind:
    """The kind of a checkpoint on disk, from its config alone.

    Args:
        folder: With ``transformer/config.json``, in either layout.

    Raises:
        GeneratorError: When there is no such config, or no such kind.
    """
    config = read_json(folder / "transformer" / "config.json")
    return kind_of(config.get("in_channels", 0))

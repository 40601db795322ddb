"""What the keys of a recipe hold: ranges, sizes, names of files, and the strict section.

A misspelt key is refused, never ignored; a switch is no number and a text is no number, so that no
slip of a file trains something else in silence.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from reward_tuning.files.file_names import file_name_fault

TIME_STRIDE = 4  # the VAE packs 4 frames into one latent, after a first frame of its own
SPACE_STRIDE = 16  # 8 of the VAE times 2 of the transformer's patches

Dtype = Literal["float32", "bfloat16", "float16"]


def _clip_length(frames: int) -> int:
    if frames % TIME_STRIDE == 1:
        return frames
    below = max(frames - (frames - 1) % TIME_STRIDE, 1)
    raise ValueError(
        f"must be 4k + 1 (1, 5, 9, 13, ...), for the VAE packs four frames into one latent; "
        f"nearest: {below} or {below + TIME_STRIDE}"
    )


def _side(pixels: int) -> int:
    if pixels % SPACE_STRIDE == 0:
        return pixels
    below = pixels // SPACE_STRIDE * SPACE_STRIDE
    nearest = f"{below} or {below + SPACE_STRIDE}" if below else f"{SPACE_STRIDE}"
    raise ValueError(
        f"must be a multiple of {SPACE_STRIDE} (8 of the VAE times 2 of the patches); "
        f"nearest: {nearest}"
    )


def _file_name(text: str) -> str:
    fault = file_name_fault(text)
    if fault:
        raise ValueError(fault)
    return text


Frames = Annotated[int, Field(ge=1), AfterValidator(_clip_length)]
Side = Annotated[int, Field(ge=SPACE_STRIDE), AfterValidator(_side)]
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
FileName = Annotated[Text, AfterValidator(_file_name)]


class Section(BaseModel):
    """Frozen, strict, without unknown keys, without NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

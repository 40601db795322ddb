"""What the keys of a recipe hold: ranges, sizes, names of files, and the strict section.

A misspelt key is refused, never ignored; a switch is no number and a text is no number, so that no
slip of a file trains something else in silence.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

TIME_STRIDE = 4  # the VAE packs 4 frames into one latent, after a first frame of its own
MOST_NAME_BYTES, MOST_PATH_BYTES = 255, 4095  # of Linux; others take no more
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


def file_name_fault(text: str) -> str | None:
    """Why no file can have this name, or None: such names end in errors of the operating system."""
    if "\0" in text:
        return "no name of a file holds a NUL character"
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return "it holds a lone surrogate, so it is not UTF-8; rename the file"
    longest = max(len(part.encode()) for part in text.split("/"))
    if longest > MOST_NAME_BYTES or len(text.encode()) > MOST_PATH_BYTES:
        return (
            f"too long for a file: {longest} bytes between two slashes (most are "
            f"{MOST_NAME_BYTES}), {len(text.encode())} in all (most are {MOST_PATH_BYTES})"
        )
    return None


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

"""Types of recipe keys: sizes and lengths of clips, dtypes, texts, and names of files."""

import re
import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from base_model.core.family import FAMILY
from reward_tuning.files.file_names import file_name_fault

Dtype = Literal["float32", "bfloat16", "float16"]

ALLOWED_INTERVAL = "two noise levels, 0 <= low < high <= 1"


def is_interval(interval: tuple[float, float]) -> bool:
    """Return whether two numbers are an interval of guidance, as `ALLOWED_INTERVAL` says."""
    low, high = interval
    return 0.0 <= low < high <= 1.0


def _clip_length(frames: int) -> int:
    stride, below = FAMILY.time_stride, FAMILY.fitting_frames(frames)
    if frames == below:
        return frames
    raise ValueError(
        f"must be {stride}k + 1 (1, {stride + 1}, {2 * stride + 1}, ...), because the VAE packs "
        f"{stride} frames into one latent; nearest: {below} or {below + stride}"
    )


def _side(pixels: int) -> int:
    unit = FAMILY.token_side
    if pixels % unit == 0:
        return pixels
    below = pixels // unit * unit
    nearest = f"{below} or {below + unit}" if below else f"{unit}"
    raise ValueError(
        f"must be a multiple of {unit} ({FAMILY.space_stride} for the VAE times {FAMILY.patch} "
        f"for the patches); nearest: {nearest}"
    )


def _file_name(text: str) -> str:
    fault = file_name_fault(text)
    if fault:
        raise ValueError(fault)
    return text


def _shown(text: str) -> str:
    """Refuse control characters: a name is printed, and a terminal obeys some of them."""
    wrong = sorted({letter for letter in text if unicodedata.category(letter) == "Cc"})
    if wrong:
        raise ValueError(
            f"contains {', '.join(f'U+{ord(letter):04X}' for letter in wrong)}, which is no letter "
            "but an order to the terminal; leave it out"
        )
    return text


def _device(text: str) -> str:
    if re.fullmatch(r"cpu|cuda(:\d+)?", text):
        return text
    raise ValueError("allowed: cpu, cuda, or cuda and a number, such as cuda:1")


DeviceName = Annotated[str, AfterValidator(_device)]
Frames = Annotated[int, Field(ge=1), AfterValidator(_clip_length)]
Side = Annotated[int, Field(ge=FAMILY.token_side), AfterValidator(_side)]
Text = Annotated[str, Field(min_length=1)]
ShownName = Annotated[Text, AfterValidator(_shown)]
FileName = Annotated[Text, AfterValidator(_file_name)]

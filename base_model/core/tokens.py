"""Sizes of clips: transformer tokens, frames under a token budget, aspect-ratio buckets.

A token is a patch of 2 x 2 latents (16 x 16 pixels) in one latent frame: a clip of f frames of H x
W has `((f - 1)/4 + 1) (H/16) (W/16)`. EasyAnimateV5.1 is trained under three budgets, named by the
tokens of a square clip of 49 frames.

The budget itself counts pixels times *frames*, in the report and in the published code alike. So
768 x 768 x 21 is under the budget of 13312 though it has 13824 tokens: 21 frames need 6 latents, a
larger share of 21 than 13 is of 49.
"""

from collections.abc import Mapping
from typing import Literal

from base_model.core.family import FAMILY
from base_model.errors import GeneratorError

BUDGETS: Mapping[int, int] = {3328: 256, 13312: 512, 53248: 1024}
"""Token budget of each training stage, with the side of the square 49-frame clip that fills it."""

FrameRule = Literal["report", "code"]


def token_count(frames: int, height: int, width: int) -> int:
    """Return the number of tokens of a clip.

    Args:
        frames: Frames, 4k + 1.
        height: Pixels, a multiple of 16.
        width: Pixels, a multiple of 16.

    Raises:
        GeneratorError: The frames or the size are none of these.
    """
    if frames < 1 or frames != FAMILY.fitting_frames(frames):
        raise GeneratorError(
            f"A clip has {FAMILY.time_stride}k + 1 frames, got {frames}. "
            f"Use {FAMILY.fitting_frames(frames)}."
        )
    _check_size(height, width)
    side = FAMILY.token_side
    return FAMILY.latent_frames(frames) * (height // side) * (width // side)


def frames_under(budget: int, height: int, width: int, rule: FrameRule = "report") -> int:
    """Return the largest number of frames of a size under a budget, at most 49.

    With x = 49 side^2 / (H W), the number of frames that the budget allows:

    * `report`: the largest 4k + 1 that is at most x, `floor((x - 1)/4) 4 + 1`. This is the
      report's table (512 x 512 x 49, 768 x 768 x 21, 1024 x 1024 x 9 at 13312), and what the
      published code does when all machines of a step share a token length.
    * `code`: `floor(x/4) 4 + 1`, the published code's table of buckets in all other cases. It can
      exceed the budget by one latent: 1024 x 1024 has 13 frames although x is 12.25.

    Args:
        budget: Tokens, a key of `BUDGETS`.
        height: Pixels, a multiple of 16.
        width: Pixels, a multiple of 16.
        rule: Rule for rounding x.

    Returns:
        4k + 1 frames, at least 1.

    Raises:
        GeneratorError: The budget is none of the three, the size is no multiple of 16, or one
            frame of it exceeds the budget.
    """
    if budget not in BUDGETS:
        raise GeneratorError(
            f"The token budget must be one of {', '.join(map(str, BUDGETS))}, got {budget}."
        )
    _check_size(height, width)
    paid = FAMILY.longest_clip * BUDGETS[budget] ** 2 // (height * width)
    if paid < 1:
        raise GeneratorError(
            f"One frame of {height} x {width} is more than the budget of {budget} tokens holds. "
            "Take a smaller size or a larger budget."
        )
    most = min(paid, FAMILY.longest_clip)
    if rule == "code":
        return most // FAMILY.time_stride * FAMILY.time_stride + 1
    return FAMILY.fitting_frames(most)


# fmt: off
SIZES_512: tuple[tuple[int, int], ...] = (
    (256, 1024), (256, 992), (256, 960), (256, 928), (288, 896), (288, 864), (288, 832), (320, 800),
    (320, 768), (352, 736), (352, 704), (352, 672), (384, 672), (384, 640), (416, 608), (416, 576),
    (448, 576), (448, 544), (480, 544), (480, 512), (512, 512), (512, 480), (544, 480), (544, 448),
    (576, 448), (576, 416), (608, 416), (640, 384), (672, 384), (704, 352), (736, 352), (768, 320),
    (800, 320), (832, 288), (864, 288), (896, 288), (928, 256), (960, 256), (992, 256), (1024, 256),
)
# fmt: on
"""Heights and widths of the published buckets for a side of 512."""


def buckets(side: int = 512) -> list[tuple[int, int]]:
    """Return sizes of about `side` squared pixels, one for each aspect ratio, wide ones first.

    Args:
        side: Side of the square bucket, in pixels.

    Returns:
        Heights and widths: the published table for 512, scaled and rounded down to multiples of 16,
        without repeats.

    Raises:
        GeneratorError: The side is below 32: the narrowest bucket would be under one token high.
    """
    if side < 32:
        raise GeneratorError(f"The side of the buckets must be at least 32 pixels, got {side}.")
    unit = FAMILY.token_side
    sizes = [
        (height * side // 512 // unit * unit, width * side // 512 // unit * unit)
        for height, width in SIZES_512
    ]
    return list(dict.fromkeys(sizes))


def nearest_bucket(height: int, width: int, side: int = 512) -> tuple[int, int]:
    """Return the bucket whose ratio of height to width is closest to a picture's.

    Args:
        height: Height of the picture, in pixels.
        width: Width of the picture, in pixels.
        side: Side of the square bucket.

    Returns:
        Height and width, multiples of 16.

    Raises:
        GeneratorError: A side of the picture is below 1, or `side` is below 32.
    """
    if height < 1 or width < 1:
        raise GeneratorError(f"A picture has at least 1 x 1 pixels, got {height} x {width}.")
    return min(buckets(side), key=lambda size: abs(size[0] / size[1] - height / width))


def _check_size(height: int, width: int) -> None:
    side = FAMILY.token_side
    if height < side or width < side or height % side or width % side:
        raise GeneratorError(
            f"Height and width must be multiples of {side}, got {height} x {width}."
        )

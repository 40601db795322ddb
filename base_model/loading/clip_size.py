"""Frames, height and width of a clip: which a checkpoint is made for, and which fit at all.

A checkpoint for another size than the published ones says so in the config of its scheduler, which
tells how it is sampled: `scheduler/scheduler_config.json` is the same in both layouts, and
conversions, exports of a fine-tuning and the hub pass it on as it is. The entry's name begins with
`_`, as diffusers' own notes there do, and diffusers reads over it.
"""

from pathlib import Path

from base_model.core.family import FAMILY, ClipSize
from base_model.errors import GeneratorError
from base_model.files.weight_files import read_json

ENTRY = "_clip_size"


def own_clip_size(folder: Path) -> ClipSize:
    """The size that a checkpoint is made for, from its config alone.

    Args:
        folder: The checkpoint, in either layout.

    Returns:
        What `_clip_size` of its scheduler's config says; the family's default without one.

    Raises:
        GeneratorError: When the entry is not frames, height and width that fit.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    entry = read_json(path).get(ENTRY) if path.is_file() else None
    if entry is None:
        return FAMILY.clip_size
    names = ClipSize._fields
    if (
        not isinstance(entry, dict)
        or entry.keys() != set(names)
        or not all(type(value) is int for value in entry.values())
    ):
        raise GeneratorError(
            f"{path}: {ENTRY} is {entry!r}. It must hold {', '.join(names)} as whole numbers, such "
            f"as {FAMILY.clip_size._asdict()}, which a checkpoint without it has."
        )
    size = ClipSize(**entry)
    try:
        check_clip_size(*size)
    except GeneratorError as error:
        raise GeneratorError(f"{path}: {ENTRY} {tuple(size)}: {error}") from error
    return size


def check_clip_size(
    frames: int,
    height: int,
    width: int,
    *,
    ratio: int = FAMILY.time_stride,
    unit: int = FAMILY.token_side,
) -> None:
    """Refuses a size that no latents have.

    Args:
        frames: Of a clip.
        height: Pixels.
        width: Pixels.
        ratio: Frames of a latent frame.
        unit: Pixels of a token's side.

    Raises:
        GeneratorError: When frames are not `ratio * k + 1`, or a side is no multiple of `unit`.
    """
    if frames < 1 or (frames - 1) % ratio:
        below = max(frames - 1, 0) // ratio * ratio + 1
        raise GeneratorError(
            f"A clip must have {ratio}k + 1 frames (1, {ratio + 1}, {2 * ratio + 1}, ...), got "
            f"{frames}. Use {below} or {below + ratio}."
        )
    for name, size in (("height", height), ("width", width)):
        if size < unit or size % unit:
            below = max(size // unit, 1) * unit
            raise GeneratorError(
                f"A clip's {name} must be a multiple of {unit}, got {size}. "
                f"Use {below} or {below + unit}."
            )

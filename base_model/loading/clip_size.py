"""Frames, height and width of a clip: the size that a checkpoint is made for, and the valid sizes.

A checkpoint for another size than the published ones names it in the config of its scheduler:
`scheduler/scheduler_config.json` is the same in both layouts, and conversions, exports of a
fine-tuning and the hub pass it on unchanged. The name of the entry begins with `_`, like diffusers'
own notes there, and diffusers ignores it.
"""

from pathlib import Path

from base_model.core.family import FAMILY, ClipSize
from base_model.errors import GeneratorError
from base_model.files.weight_files import read_json

ENTRY = "_clip_size"


def own_clip_size(folder: Path) -> ClipSize:
    """Read the size that a checkpoint is made for from its config.

    Args:
        folder: Folder of the checkpoint, in either layout.

    Returns:
        `_clip_size` of the scheduler's config; the family's default if there is none.

    Raises:
        GeneratorError: The entry is not a valid number of frames, height and width.
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
            f"as {FAMILY.clip_size._asdict()}, the default without this entry."
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
    """Refuse a size that no latents have.

    Args:
        frames: Frames of a clip.
        height: Height in pixels.
        width: Width in pixels.
        ratio: Frames in one latent frame.
        unit: Pixels along the side of a token.

    Raises:
        GeneratorError: The frames are not `ratio * k + 1`, or a side is no multiple of `unit`.
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

"""The generator that a recipe means: one checkpoint, or one with parts from elsewhere."""

from pathlib import Path

from base_model.shipped import PARTS, resolve_checkpoint, resolve_part
from reward_tuning.sections import GeneratorSection


def generator_checkpoint(generator: GeneratorSection) -> str:
    """What to load: the checkpoint's name, or the folder in which its parts are put together.

    Args:
        generator: Resolved, as `load_recipe` leaves it.

    Raises:
        GeneratorError: A part is not there, or the cache cannot be written.
    """
    named = {part: getattr(generator, part) for part in PARTS}
    parts = {part: resolve_part(part, name) for part, name in named.items() if name is not None}
    if not parts:
        return generator.checkpoint
    from base_model.parts import with_parts  # imports torch

    return str(with_parts(resolve_checkpoint(generator.checkpoint), parts))


def generator_folder(generator: GeneratorSection, *, text_encoder: bool) -> Path:
    """The same on the disk; what a hub id means is downloaded.

    Args:
        generator: Resolved, as `load_recipe` leaves it.
        text_encoder: Whether the text encoder and tokenizer are needed, too.

    Raises:
        GeneratorError: A part is missing, or the hub does not give it.
    """
    from base_model.checkpoint import local_folder  # imports torch

    checkpoint = resolve_checkpoint(generator_checkpoint(generator))
    return local_folder(checkpoint, text_encoder=text_encoder)

"""The generator of a recipe: one checkpoint, or one with parts from other places."""

from pathlib import Path
from typing import TYPE_CHECKING

from base_model.files.hub import download
from base_model.files.shipped import PARTS, resolve_checkpoint, resolve_part
from reward_tuning.schema.sections import GeneratorSection

if TYPE_CHECKING:
    import torch

    from base_model.core.kinds import Kind

CONFIG = "transformer/config.json"


def generator_checkpoint(generator: GeneratorSection) -> str:
    """Return the checkpoint to load: its name, or the folder that combines its parts.

    Args:
        generator: Resolved, as `load_recipe` leaves it.

    Raises:
        GeneratorError: A part is missing, or the cache folder cannot be written.
    """
    named = {part: getattr(generator, part) for part in PARTS}
    parts = {part: resolve_part(part, name) for part, name in named.items() if name is not None}
    if not parts:
        return generator.checkpoint
    from base_model.loading.parts import with_parts  # imports torch

    return str(with_parts(resolve_checkpoint(generator.checkpoint), parts))


def vae_dtype(generator: GeneratorSection) -> "torch.dtype | None":
    """Return the dtype of the VAE, as `load_generator` takes it; None for the generator's."""
    import torch

    found: torch.dtype | None = None
    if generator.vae_dtype is not None:
        found = getattr(torch, generator.vae_dtype)
    return found


def generator_folder(generator: GeneratorSection, *, text_encoder: bool) -> Path:
    """Return the generator's folder on the disk; a hub id is downloaded.

    Args:
        generator: Resolved, as `load_recipe` leaves it.
        text_encoder: Also require the text encoder and tokenizer.

    Raises:
        GeneratorError: A part is missing, or the download fails.
    """
    from base_model.loading.checkpoint import local_folder  # imports torch

    checkpoint = resolve_checkpoint(generator_checkpoint(generator))
    return local_folder(checkpoint, text_encoder=text_encoder)


def is_here(generator: GeneratorSection) -> bool:
    """Return whether checkpoint and parts are on the disk, so that nothing needs a download.

    Raises:
        GeneratorError: One of them does not exist.
    """
    named = {part: getattr(generator, part) for part in PARTS}
    places = [resolve_part(part, name) for part, name in named.items() if name is not None]
    return all(map(_on_disk, (resolve_checkpoint(generator.checkpoint), *places)))


def to_download(generator: GeneratorSection) -> list[str]:
    """Return the hub ids of checkpoint and parts whose weights are not in the hub's cache.

    Raises:
        GeneratorError: One of them does not exist.
    """
    named = {part: getattr(generator, part) for part in PARTS}
    wanted = [(resolve_checkpoint(generator.checkpoint), [p for p in PARTS if named[p] is None])]
    wanted += [(resolve_part(p, name), [p]) for p, name in named.items() if name is not None]
    return [
        place
        for place, parts in wanted
        if isinstance(place, str) and not all(_cached(place, part) for part in parts)
    ]


def _cached(hub_id: str, part: str) -> bool:
    """Return whether the hub's cache holds weights of a part; it links whole files only."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = hub_id.partition("@")
    found = try_to_load_from_cache(name, f"{part}/config.json", revision=revision or None)
    return isinstance(found, str) and any(Path(found).parent.glob("*.safetensors"))


def folder_if_here(generator: GeneratorSection) -> Path | None:
    """Return the generator's folder without its text encoder; None if it needs a download.

    Raises:
        GeneratorError: As `is_here` and `generator_folder`.
    """
    return generator_folder(generator, text_encoder=False) if is_here(generator) else None


def _on_disk(place: Path | str) -> bool:
    """Return whether a checkpoint or part is, including the base of one that holds changes only."""
    from base_model.loading.delta import base_of, is_delta  # imports torch

    if isinstance(place, str):
        return False
    return not is_delta(place) or _on_disk(resolve_checkpoint(base_of(place)))


def generator_kind(generator: GeneratorSection) -> "Kind":
    """Return the transformer's kind from its config; of a hub id only the config is downloaded.

    Args:
        generator: Resolved, as `load_recipe` leaves it.

    Raises:
        GeneratorError: There is no config, the download fails, or the kind is unknown.
    """
    from base_model.loading.model_configs import kind_of_checkpoint  # imports torch

    checkpoint = resolve_checkpoint(generator.checkpoint)
    if isinstance(checkpoint, str) and not any(getattr(generator, part) for part in PARTS):
        folder = download(checkpoint, [CONFIG])
        if (folder / CONFIG).is_file():
            return kind_of_checkpoint(folder)
    return kind_of_checkpoint(generator_folder(generator, text_encoder=False))

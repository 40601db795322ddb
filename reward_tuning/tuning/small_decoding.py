"""Which decoder a run shows its clips with: the VAE's, or the small one that a recipe asks for."""

from __future__ import annotations

from pathlib import Path

from base_model.generator import Generator
from base_model.loading.checkpoint import load_vae
from base_model.loading.small_decoder import find_small_decoder, load_small_decoder
from reward_tuning.files.hashes import file_sha256
from reward_tuning.schema.recipe import Recipe
from reward_tuning.schema.sections import TrainSection


def wants_small_decoder(train: TrainSection) -> bool:
    """Return whether anything in a run decodes with the small decoder."""
    return train.decoder != "vae" or train.sample_decoder != "vae"


def check_small_decoder(train: TrainSection, checkpoint: Path) -> None:
    """Refuse a small decoder that is not of the VAE in a checkpoint's folder.

    Raises:
        GeneratorError: There is none for this VAE, or the named one is of another.
    """
    find_small_decoder(_named(train), load_vae(checkpoint))


def attach_small_decoder(recipe: Recipe, generator: Generator) -> dict[str, str]:
    """Give the generator the small decoder that a recipe uses.

    Returns:
        Its fingerprint by name; empty where the recipe uses none.

    Raises:
        GeneratorError: There is none for this VAE, or the named one is of another.
    """
    if not wants_small_decoder(recipe.train):
        return {}
    path = find_small_decoder(_named(recipe.train), generator.vae)
    dtype = generator.vae.post_quant_conv.weight.dtype
    generator.small_decoder = load_small_decoder(path, dtype=dtype, device=generator.device)
    return {"small decoder": f"sha256:{file_sha256(path)}"}


def _named(train: TrainSection) -> Path | None:
    return None if train.small_decoder is None else Path(train.small_decoder)

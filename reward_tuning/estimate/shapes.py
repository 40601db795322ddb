"""The shapes of a recipe's networks, from configs alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from base_model.files.weight_files import read_json
from base_model.loading.published_configs import published_configs
from base_model.networks.prompt_encoder import MAX_TOKENS
from reward_tuning.errors import TuningError
from reward_tuning.sampling.generator_parts import generator_folder, is_here
from reward_tuning.schema.sections import GeneratorSection
from rewards.clip_towers.open_clip_models import Architecture


@dataclass(frozen=True)
class Shape:
    """The networks of a step.

    Attributes:
        name: What they are the shapes of.
        transformer: Its config.
        vae: Its config.
        text_encoder: Its config.
        judge: open_clip's architecture of every judge; None takes that of each judge's own file.
    """

    name: str
    transformer: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoder: Mapping[str, Any]
    judge: Architecture | None = None

    @property
    def text(self) -> tuple[int, int]:
        """Tokens and channels of a prompt's states."""
        config = self.text_encoder
        return min(MAX_TOKENS, config["max_position_embeddings"]), config["hidden_size"]

    @property
    def blocks(self) -> tuple[int, int]:
        """Number of blocks with a text stream of their own, and without."""
        layers = self.transformer["num_layers"]
        own = min(self.transformer["mmdit_layers"], layers)
        return own, layers - own

    def with_blocks(self, own: int, shared: int) -> Shape:
        """Return the same shape with other numbers of blocks."""
        change = {"num_layers": own + shared, "mmdit_layers": own}
        return replace(self, transformer={**self.transformer, **change})


def shape_of(generator: GeneratorSection) -> Shape:
    """Return the shapes of a recipe's networks.

    Args:
        generator: Resolved.

    Raises:
        TuningError: The checkpoint is neither a published one nor on this disk.
    """
    if is_here(generator):
        folder = generator_folder(generator, text_encoder=True)
        configs = (
            read_json(folder / part / "config.json")
            for part in ("transformer", "vae", "text_encoder")
        )
        return Shape(generator.checkpoint, *configs)
    published = published_configs(generator.checkpoint)
    if published is None:
        raise TuningError(
            f"generator.checkpoint: the shapes of {generator.checkpoint} are not known, because it "
            "is neither on this disk nor a published EasyAnimateV5.1; download it first: "
            f"hf download {generator.checkpoint}"
        )
    return Shape(published.name, published.transformer, published.vae, published.text_encoder)

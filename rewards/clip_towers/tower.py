"""CLIP towers of open_clip: published, embedded and other files are loaded in one way.

They differ only in data: an architecture, a `Preprocess` and a tokenizer. An embedded file names
all three in its metadata (the tokenizer's file is in its folder), a file from the hub has
open_clip's configuration in its folder, a published one has a record, and any other file gets its
architecture from the recipe.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.clip_towers.hf_keys import is_transformers_layout, to_open_clip
from rewards.clip_towers.open_clip_models import (
    Architecture,
    build_model,
    builds_without_values,
    cast_weights,
    config_beside,
    image_size,
    named_preprocess,
    open_clip_config,
    preprocess_of,
    restore_causal_mask,
)
from rewards.clip_towers.tokenizers import build_tokenizer
from rewards.core.json_text import json_object
from rewards.core.preprocess import Preprocess
from rewards.core.shared_towers import derived
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import WeightFile, check_keys
from rewards.errors import RewardError

BuildTokenizer = Callable[[Architecture, Path | None, Path | None], Any]
"""`(architecture, merges file or None, folder of the judge's file)` -> a tokenizer."""


class TextTower:
    """The text side of a frozen two-tower model.

    Attributes:
        model: Model with open_clip's `encode_text`, in evaluation mode.
        tokenizer: Converts texts to token numbers `(b, length)`.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self._texts: dict[str, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Return features of b texts, `(b, d)` of length 1, without gradient; cached by text.

        Each text is encoded alone: in a batch its last bits depend on its neighbours, and a resumed
        run has other neighbours than the same run without an interruption.
        """
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._texts:
                with torch.no_grad():
                    tokens = self.tokenizer([prompt]).to(self.device)
                    self._texts[prompt] = unit_length(self.model.encode_text(tokens))[0]
        return torch.stack([self._texts[prompt] for prompt in prompts])

    @property
    def context_length(self) -> int:
        """Number of tokens of a text that it reads, start and end token included."""
        return int(self.tokenizer.context_length)

    def truncated(self, texts: Sequence[str]) -> list[int]:
        """Return the positions of texts that are cut off."""
        most = self.context_length - 2  # without the start and end token
        return [i for i, text in enumerate(texts) if len(self.tokenizer.encode(text)) > most]


class ClipTower(TextTower):
    """A frozen CLIP: normalised fp32 features of images and of texts.

    Attributes:
        preprocess: Preprocessing of frames.
        architecture: Configuration of the model.
    """

    def __init__(
        self,
        model: Any,
        architecture: Architecture,
        preprocess: Preprocess,
        tokenizer: Any,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(model, tokenizer)
        self.architecture = architecture
        self.preprocess = preprocess
        self.dtype = dtype

    def image_features(self, images: Tensor) -> Tensor:
        """Encode frames `(n, 3, H, W)` in [0, 1]: `(n, d)` of length 1, fp32 (fp64 in fp64)."""

        def compute() -> Tensor:
            return unit_length(self.model.encode_image(self.preprocess(images).to(self.dtype)))

        # The key is the image tower: two models may share it and differ in the text tower.
        return derived(images, (self.model.visual, self.preprocess, self.dtype), compute)


def unit_length(features: Tensor) -> Tensor:
    """Normalise `(n, d)` of any float dtype to length 1, in fp32 (or fp64)."""
    # A bf16 cosine of 0.27 has steps of 0.002, as large as the gain of a run: hence fp32 first.
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def load_tower(
    checkpoint: WeightFile,
    tower_options: TowerOptions,
    architecture: str | Architecture | None = None,
    preprocess: Preprocess | None = None,
    tokenizer: BuildTokenizer = build_tokenizer,
) -> ClipTower:
    """Load a file into its architecture, strictly.

    Args:
        checkpoint: File with the names of open_clip, or of transformers' `CLIPModel`.
        tower_options: Where and how it runs; in bf16 and fp16 the layer norms stay fp32.
        architecture: open_clip's model name or its configuration, for a file that does not say.
        preprocess: Preprocessing if the file names none; `None` for the architecture's own.
        tokenizer: Function that builds the tokenizer; open_clip's by default.

    Raises:
        RewardError: The architecture is unknown, or names or shapes differ from it.
    """
    found, what = find_architecture(checkpoint, architecture)
    if "preprocess" in checkpoint.metadata:
        preprocess = Preprocess.from_json(checkpoint.metadata["preprocess"])
    elif preprocess is None:
        preprocess = _own_preprocess(checkpoint, architecture, found)
    merges = checkpoint.metadata.get("tokenizer")
    folder = checkpoint.path.parent
    words = tokenizer(found, folder / merges if merges else None, folder)
    model = _filled_model(checkpoint, tower_options, found, what)
    return ClipTower(model, found, preprocess, words, tower_options.dtype)


def _filled_model(
    checkpoint: WeightFile, tower_options: TowerOptions, architecture: Architecture, what: str
) -> Any:
    without_values = builds_without_values(architecture)
    place = torch.device("meta" if without_values else "cpu")
    model = build_model(architecture, place, tower_options.dtype)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state = checkpoint.state
    if is_transformers_layout(state):
        state = to_open_clip(state, expected, what, checkpoint.path)
    check_keys(expected, state, what, checkpoint.path)
    exact = torch.promote_types(tower_options.dtype, torch.float32)
    state = {k: t.to(exact) if t.is_floating_point() else t for k, t in state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    if without_values:
        restore_causal_mask(model)
    cast_weights(model, architecture, tower_options.dtype)
    if tower_options.gradient_checkpointing:
        model.set_grad_checkpointing(True)
    model = model.to(tower_options.device)
    if tower_options.pool is None:
        return model
    return tower_options.pool.share_clip(model, architecture, tower_options.gradient_checkpointing)


def find_architecture(
    checkpoint: WeightFile, given: str | Architecture | None
) -> tuple[Architecture, str]:
    """Return the configuration of a file's model, and its name for messages.

    A file that states its architecture and a recipe that gives one must agree.

    Raises:
        RewardError: Neither states it, open_clip does not know the name, or file and recipe differ.
    """
    inside = checkpoint.metadata.get("architecture")
    config = config_beside(checkpoint.path)
    if inside is None and config is not None:
        inside = json.dumps(config["model_cfg"])
    if inside is not None:
        own = json_object(inside, f"the architecture in {checkpoint.path}")
        if "vision_cfg" not in own:
            raise RewardError(
                f"{checkpoint.path} has kind {checkpoint.metadata.get('kind')!r} and no tower for "
                "frames. Load a judge of latents with kind latent, or give a CLIP here"
            )
        if (
            given is not None
            and (open_clip_config(given) if isinstance(given, str) else given) != own
        ):
            raise RewardError(
                f"{checkpoint.path} states the architecture {inside}, the recipe {given}. Remove "
                "architecture from the recipe"
            )
        return own, f"its own architecture (embed_dim {own.get('embed_dim')})"
    if given is None and checkpoint.published is not None:
        given = checkpoint.published.architecture
    if given is None:
        raise RewardError(
            f"{checkpoint.path} does not state its architecture. Add it to the judge: "
            "architecture: ViT-H-14 (any model name of open_clip)"
        )
    if isinstance(given, str):
        return open_clip_config(given), f"the architecture {given}"
    return given, f"the given architecture (embed_dim {given.get('embed_dim')})"


def _own_preprocess(
    checkpoint: WeightFile, given: str | Architecture | None, architecture: Architecture
) -> Preprocess:
    """Return the preprocessing in the file's folder, or that of open_clip's model name."""
    size = image_size(architecture)
    config = config_beside(checkpoint.path)
    if config is not None:
        return preprocess_of(config["preprocess_cfg"], size, str(checkpoint.path))
    if given is None and checkpoint.published is not None:
        given = checkpoint.published.architecture
    if isinstance(given, str):
        return named_preprocess(given, size)
    return preprocess_of({}, size, str(checkpoint.path))

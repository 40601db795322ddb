"""CLIP towers of open_clip: one path for the published checkpoints and for the embedded ones.

What differs between them is data: an architecture, a :class:`Preprocess` and a tokenizer. An
embedded file names all three in its metadata (the tokenizer's file lies beside it), a published one
is known by its record, and any other file gets its architecture from the recipe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.checkpoint import Checkpoint, check_keys
from rewards.errors import RewardError
from rewards.preprocess import Preprocess
from rewards.torchvision_import import ensure_torchvision_importable

Architecture = Mapping[str, Any]
"""open_clip's model configuration: ``embed_dim``, ``vision_cfg``, ``text_cfg``, ``quick_gelu``."""

LOW_PRECISION = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class TowerOptions:
    """Where and how a tower runs.

    Attributes:
        device: of the weights.
        dtype: of the weights; in bf16 and fp16 the layer norms stay fp32.
        architecture: open_clip's name or configuration, for a file that does not say.
        gradient_checkpointing: recompute each transformer block in the backward pass.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    architecture: str | Architecture | None = None
    gradient_checkpointing: bool = False


class TextTower:
    """The text side of a frozen two-tower model.

    Attributes:
        model: has open_clip's ``encode_text``; put into evaluation mode.
        tokenizer: texts -> ``(b, length)`` token numbers.
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
        """B texts -> ``(b, d)`` of length 1, without gradient; every text is encoded once.

        Each text is encoded alone: in a batch its last bits depend on its neighbours, and a resumed
        run meets other neighbours than the run that was never stopped.
        """
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._texts:
                with torch.no_grad():
                    tokens = self.tokenizer([prompt]).to(self.device)
                    self._texts[prompt] = unit_length(self.model.encode_text(tokens))[0]
        return torch.stack([self._texts[prompt] for prompt in prompts])

    @property
    def context_length(self) -> int:
        """Tokens of a text that it reads, the two marks at its ends included."""
        return int(self.tokenizer.context_length)

    def truncated(self, texts: Sequence[str]) -> list[int]:
        """Positions of the texts of which the end is cut off."""
        most = self.context_length - 2  # beside the marks of start and end
        return [i for i, text in enumerate(texts) if len(self.tokenizer.encode(text)) > most]


class ClipTower(TextTower):
    """A frozen CLIP: normalised fp32 features of images and of texts.

    Attributes:
        preprocess: from frames to the model's input.
        architecture: the model's configuration.
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
        """``(n, 3, H, W)`` in [0, 1] -> ``(n, d)`` of length 1, fp32 (fp64 for an fp64 tower)."""
        pixels = self.preprocess(images).to(self.dtype)
        return unit_length(self.model.encode_image(pixels))


def unit_length(features: Tensor) -> Tensor:
    """``(n, d)`` of any float dtype -> the same directions at length 1, fp32 (or fp64)."""
    # A bf16 cosine of 0.27 has steps of 0.002, as large as what a reward run gains: fp32 first.
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def load_tower(checkpoint: Checkpoint, options: TowerOptions, preprocess: Preprocess) -> ClipTower:
    """Put a checkpoint into its architecture, strictly.

    Args:
        checkpoint: tensors in open_clip's names.
        options: where and how it runs.
        preprocess: used when the file names none; ``size`` is then the architecture's.

    Raises:
        RewardError: no architecture is known, or names or shapes differ from it.
    """
    architecture, what = find_architecture(checkpoint, options.architecture)
    model = build_model(architecture, torch.device("meta"), options.dtype)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    check_keys(expected, checkpoint.state, what, checkpoint.path)
    state = {
        name: tensor.to(options.dtype if options.dtype == torch.float64 else torch.float32)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in checkpoint.state.items()
    }
    model.load_state_dict(state, strict=True, assign=True)
    _restore_causal_mask(model)
    _lower_precision(model, options.dtype)
    if options.gradient_checkpointing:
        model.set_grad_checkpointing(True)
    model = model.to(options.device)
    if "preprocess" in checkpoint.metadata:
        preprocess = Preprocess.from_json(checkpoint.metadata["preprocess"])
    merges = checkpoint.metadata.get("tokenizer")
    tokenizer = build_tokenizer(architecture, checkpoint.path.parent / merges if merges else None)
    return ClipTower(model, architecture, preprocess, tokenizer, options.dtype)


def find_architecture(
    checkpoint: Checkpoint, given: str | Architecture | None
) -> tuple[Architecture, str]:
    """The configuration of a checkpoint's model and what to call it in a message.

    A file that says what it is wins over a recipe's word only if both agree.

    Raises:
        RewardError: nobody says which, the name is unknown to open_clip, or file and recipe differ.
    """
    inside = checkpoint.metadata.get("architecture")
    if inside is not None:
        own = json.loads(inside)
        if "vision_cfg" not in own:
            raise RewardError(
                f"{checkpoint.path} is of the kind {checkpoint.metadata.get('kind')!r} and has no "
                "tower for frames. Load a judge of latents with kind latent, or give a CLIP here."
            )
        if (
            given is not None
            and (open_clip_config(given) if isinstance(given, str) else given) != own
        ):
            raise RewardError(
                f"{checkpoint.path} says that its architecture is {inside}, the recipe says "
                f"{given}. Remove the recipe's architecture."
            )
        return own, f"its own architecture (embed_dim {own.get('embed_dim')})"
    if given is None and checkpoint.published is not None:
        given = checkpoint.published.architecture
    if given is None:
        raise RewardError(
            f"{checkpoint.path} does not say which architecture it is for. Add it to the judge: "
            "architecture: ViT-H-14 (any model name of open_clip)."
        )
    if isinstance(given, str):
        return open_clip_config(given), f"the architecture {given}"
    return given, f"the given architecture (embed_dim {given.get('embed_dim')})"


def open_clip_config(name: str) -> Architecture:
    """open_clip's configuration of a model name.

    Raises:
        RewardError: open_clip does not know the name.
    """
    open_clip = import_open_clip()
    config = open_clip.get_model_config(name)
    if config is None:
        import difflib

        near = difflib.get_close_matches(name, open_clip.list_models(), n=3)
        raise RewardError(
            f"open_clip knows no architecture {name!r}"
            + (f"; near: {', '.join(near)}." if near else ". `open_clip.list_models()` lists them.")
        )
    return dict(config)


def build_model(
    architecture: Architecture, device: torch.device, dtype: torch.dtype = torch.float32
) -> Any:
    """An open_clip ``CLIP`` with random weights (none on the meta device).

    Raises:
        RewardError: the configuration is not one of open_clip's CLIP.
    """
    open_clip = import_open_clip()
    cast = dtype if dtype in LOW_PRECISION else None  # keeps the layer norms in fp32
    try:
        with device:
            return open_clip.CLIP(**architecture, cast_dtype=cast, output_dict=True)
    except TypeError as error:
        raise RewardError(f"open_clip cannot build this architecture: {error}") from error


def build_tokenizer(architecture: Architecture, merges: Path | None) -> Any:
    """open_clip's byte-level tokenizer: OpenAI's vocabulary, or a shipped smaller one.

    Args:
        architecture: says the context length and the vocabulary's size.
        merges: a merges file (:mod:`rewards.bpe`); ``None`` for OpenAI's.

    Raises:
        RewardError: the merges file is missing, or its vocabulary has another size.
    """
    text = architecture["text_cfg"]
    if merges is not None and not merges.is_file():
        raise RewardError(
            f"the tokenizer file {merges} is missing; it belongs beside the judge's file."
        )
    tokenizer = _tokenizer(merges, text.get("context_length", 77))
    if tokenizer.vocab_size != text.get("vocab_size", 49408):
        raise RewardError(
            f"the tokenizer {merges.name if merges else 'of OpenAI'} has {tokenizer.vocab_size} "
            f"tokens, the architecture {text.get('vocab_size')}: they do not belong together."
        )
    return tokenizer


@cache
def _tokenizer(merges: Path | None, context: int) -> Any:
    import_open_clip()
    from open_clip.tokenizer import SimpleTokenizer

    if merges is None:
        return SimpleTokenizer(context_length=context)
    return SimpleTokenizer(bpe_path=str(merges), context_length=context)


def import_open_clip() -> Any:
    """Import open_clip (seconds, so never at the top of a file)."""
    ensure_torchvision_importable()
    import open_clip

    return open_clip


def _restore_causal_mask(model: Any) -> None:
    # The one buffer that is in no checkpoint; on the meta device it has no values.
    length = model.context_length
    mask = torch.full((length, length), float("-inf")).triu_(1)
    assert model.attn_mask.shape == mask.shape
    model.attn_mask = mask
    left = [n for n, t in [*model.named_parameters(), *model.named_buffers()] if t.is_meta]
    assert not left, f"tensors without values: {left}"


def _lower_precision(model: Any, dtype: torch.dtype) -> None:
    if dtype in LOW_PRECISION:
        from open_clip.model import convert_weights_to_lp

        convert_weights_to_lp(model, dtype=dtype)
    elif dtype == torch.float64:
        model.double()

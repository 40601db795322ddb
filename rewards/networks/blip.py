"""ImageReward's network on transformers' BLIP, with the names of the published file.

A vision transformer reads the image, a BERT reads the prompt and looks at the image's tokens
through cross-attention in every layer, and a head reads BERT's first state (Xu et al., 2304.05977).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rewards.core.recompute import recompute_blocks
from rewards.core.torchvision_import import ensure_torchvision_importable
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import WeightFile, check_keys
from rewards.errors import RewardError
from rewards.networks.laion_head import build_head

BlipArchitecture = Mapping[str, Mapping[str, Any]]
"""`vision` and `text`: fields of transformers' `BlipVisionConfig` and `BlipTextConfig`."""

PUBLISHED_ARCHITECTURE: BlipArchitecture = {
    "vision": {
        "image_size": 224,
        "patch_size": 16,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "text": {
        "vocab_size": 30524,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
    },
}
"""ViT-L/16 at 224 and BERT-base, whose vocabulary has two more tokens."""

FIELDS = {part: frozenset(fields) for part, fields in PUBLISHED_ARCHITECTURE.items()}

UNUSED = (
    "blip.vision_proj.weight",
    "blip.vision_proj.bias",
    "blip.text_proj.weight",
    "blip.text_proj.bias",
    "blip.text_encoder.embeddings.position_ids",
)
"""Tensors of the published file that no score uses: BLIP's contrastive projections, a counter."""

_PARTS = {"vision.": "blip.visual_encoder.", "text.": "blip.text_encoder.", "head.": "mlp."}
_VISION = (
    ("embeddings.class_embedding", "cls_token"),
    ("embeddings.position_embedding", "pos_embed"),
    ("embeddings.patch_embedding.", "patch_embed.proj."),
    ("encoder.layers.", "blocks."),
    (".layer_norm1.", ".norm1."),
    (".layer_norm2.", ".norm2."),
    (".self_attn.projection.", ".attn.proj."),
    (".self_attn.qkv.", ".attn.qkv."),
    ("post_layernorm.", "norm."),
)


def published_name(name: str) -> str:
    """Return the published name of a tensor of `BlipScorer`."""
    part = next(part for part in _PARTS if name.startswith(part))
    rest = name.removeprefix(part)
    if part == "vision.":
        for ours, theirs in _VISION:
            rest = rest.replace(ours, theirs)
    return _PARTS[part] + rest


class BlipScorer(nn.Module):
    """Scores an image and a prompt, before normalisation.

    Attributes:
        vision: transformers' `BlipVisionModel`.
        text: transformers' `BlipTextModel` with cross-attention.
        head: LAION's head on the text's first state; ImageReward has the same one.
    """

    def __init__(self, architecture: BlipArchitecture) -> None:
        super().__init__()
        ensure_torchvision_importable()
        from transformers import BlipTextConfig, BlipVisionConfig
        from transformers.models.blip.modeling_blip import BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        vision, text = architecture["vision"], architecture["text"]
        self.vision: Any = BlipVisionModel(BlipVisionConfig(**vision, layer_norm_eps=1e-6))
        # Without is_decoder there are no cross-attention modules; the calls set is_decoder=False,
        # so that attention is not causal.
        config = BlipTextConfig(
            **text,
            encoder_hidden_size=vision["hidden_size"],
            is_decoder=True,
            bos_token_id=None,  # for generating; its default is outside of a small vocabulary
        )
        self.text: Any = BlipTextModel(config, add_pooling_layer=False)
        self.head = build_head(text["hidden_size"])

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """Encode `(n, 3, size, size)`, normalised: `(n, 1 + patches, width)`, class token first."""
        tokens: Tensor = self.vision(pixel_values=pixels).last_hidden_state
        return tokens

    def first_state(self, ids: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
        """Return the text's [CLS] state after it has attended to the image.

        Args:
            ids: `(n, length)` token numbers.
            mask: `(n, length)`, 1 for text and 0 for padding.
            tokens: `(n, 1 + patches, width)`.

        Returns:
            `(n, d)` in the towers' dtype.
        """
        states = self.text(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=tokens,
            encoder_attention_mask=mask.new_ones(tokens.shape[:2]),
            is_decoder=False,
        ).last_hidden_state
        first: Tensor = states[:, 0]
        return first

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Score pixels in the towers' dtype and token numbers: `(n,)` in the head's dtype."""
        state = self.first_state(ids, mask, self.image_tokens(pixels))
        number: Tensor = self.head(state.to(next(self.head.parameters()).dtype))
        return number.squeeze(-1)

    def published_state(self) -> dict[str, Tensor]:
        """Return all tensors under the published names."""
        return {published_name(name): tensor for name, tensor in self.state_dict().items()}


def load_scorer(
    checkpoint: WeightFile,
    architecture: BlipArchitecture,
    tower_options: TowerOptions,
) -> BlipScorer:
    """Load a published file into its network, strictly.

    Args:
        checkpoint: File with the published names; `UNUSED` may be among them.
        architecture: Architecture that `check_architecture` accepts.
        tower_options: Where and how it runs. The towers have the dtype, layer norms too; the head
            is fp32 (fp64 under fp64 towers).

    Raises:
        RewardError: Names or shapes differ.
    """
    with torch.device("meta"):
        scorer = BlipScorer(architecture)
    ours = {published_name(name): name for name in scorer.state_dict()}
    expected = {theirs: scorer.state_dict()[name].shape for theirs, name in ours.items()}
    given = {name: t for name, t in checkpoint.state.items() if name not in UNUSED}
    what = f"ImageReward's BLIP of width {architecture['vision']['hidden_size']}"
    check_keys(expected, given, what, checkpoint.path)
    dtype = tower_options.dtype
    head_dtype = torch.promote_types(dtype, torch.float32)
    state = {
        ours[theirs]: tensor.to(head_dtype if theirs.startswith("mlp.") else dtype)
        for theirs, tensor in given.items()
    }
    scorer.load_state_dict(state, strict=True, assign=True)
    _restore_positions(scorer)
    if tower_options.gradient_checkpointing:
        recompute_blocks(scorer.vision.encoder.layers)
        recompute_blocks(scorer.text.encoder.layer)
    return scorer.to(tower_options.device).eval().requires_grad_(False)


def check_architecture(architecture: Mapping[str, Any], source: str) -> BlipArchitecture:
    """Check that an architecture has the fields of the published one.

    Args:
        architecture: `{"vision": {...}, "text": {...}}`.
        source: Origin of the architecture, for the message.

    Raises:
        RewardError: Fields are missing or unknown.
    """
    for part, names in FIELDS.items():
        fields = architecture.get(part)
        if not isinstance(fields, Mapping) or set(fields) != names:
            got = sorted(fields) if isinstance(fields, Mapping) else fields
            raise RewardError(
                f"{source} gives the part {part} of ImageReward's architecture as {got}; it needs "
                f"exactly {', '.join(sorted(names))}. The published checkpoint needs no "
                "architecture: remove it, or name every field"
            )
    return architecture


def _restore_positions(scorer: BlipScorer) -> None:
    # The one buffer that is in no state dict; after the meta device it has no values.
    embeddings = scorer.text.embeddings
    count = embeddings.position_ids.shape[-1]
    embeddings.register_buffer("position_ids", torch.arange(count)[None], persistent=False)
    left = [n for n, t in [*scorer.named_parameters(), *scorer.named_buffers()] if t.is_meta]
    assert not left, f"tensors without values: {left}"

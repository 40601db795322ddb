"""The network of MPS: transformers' CLIP without its pooling, and a cross model on its tokens.

The modules have the names of the published state dict, so nothing is renamed.
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
from rewards.networks.cross_model import CrossModel

MpsArchitecture = Mapping[str, Any]
"""`text` and `vision`: fields of transformers' `CLIPTextConfig` and `CLIPVisionConfig`;
`cross`: `layers`, `heads` and `head_width`; `width` of the space that they share."""

PUBLISHED_ARCHITECTURE: MpsArchitecture = {
    "width": 1024,
    "text": {
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "vision": {
        "image_size": 224,
        "patch_size": 14,
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "intermediate_size": 5120,
    },
    "cross": {"layers": 4, "heads": 16, "head_width": 64},
}
"""LAION's CLIP-ViT-H-14 and the authors' four layers."""

COUNTERS = (
    "model.text_model.embeddings.position_ids",
    "model.vision_model.embeddings.position_ids",
)
"""Counters 0, 1, 2, ... of older transformers that no score uses; a file may contain them."""


class MpsNetwork(nn.Module):
    """CLIP and the cross model.

    Attributes:
        model: transformers' `CLIPModel`.
        cross_model: What the image makes of the prompt.
    """

    def __init__(self, architecture: MpsArchitecture) -> None:
        super().__init__()
        ensure_torchvision_importable()
        from transformers import CLIPConfig, CLIPModel

        width = architecture["width"]
        # eos_token_id 2 pools the state at the highest token number: the first end token.
        marks = {"eos_token_id": 2, "bos_token_id": None}
        text = {**architecture["text"], "hidden_act": "gelu", **marks}
        vision = {**architecture["vision"], "hidden_act": "gelu"}
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)
        self.model: Any = CLIPModel(config)
        cross = architecture["cross"]
        self.cross_model = CrossModel(width, cross["layers"], cross["heads"], cross["head_width"])

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """Encode `(n, 3, size, size)`, normalised: `(n, 1 + patches, width)`, not pooled."""
        states = self.model.vision_model(pixel_values=pixels).last_hidden_state
        tokens: Tensor = self.model.visual_projection(states)
        return tokens

    def text_tokens(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Encode `(n, length)` tokens, padded with the end token: all tokens, and the prompt.

        Returns:
            `(n, length, width)`, and `(n, width)` for the whole prompt: the state at the first end
            token. There is no mask: the cross model also reads what follows the end token.
        """
        output = self.model.text_model(input_ids=ids)
        project = self.model.text_projection
        return project(output.last_hidden_state), project(output.pooler_output)


def load_network(
    checkpoint: WeightFile,
    architecture: MpsArchitecture,
    tower_options: TowerOptions,
) -> MpsNetwork:
    """Load the re-released state dict into its network, strictly.

    Args:
        checkpoint: File with the published names; `COUNTERS` may be among them.
        architecture: Architecture that `check_architecture` accepts.
        tower_options: Where and how it runs. Everything has the dtype, layer norms too; the blocks
            of the vision tower and of the cross model are recomputed.

    Raises:
        RewardError: Names or shapes differ.
    """
    with torch.device("meta"):
        network = MpsNetwork(architecture)
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    given = {name: t for name, t in checkpoint.state.items() if name not in COUNTERS}
    what = f"MPS of width {architecture['width']}"
    check_keys(expected, given, what, checkpoint.path)
    # In bf16, a rotary frequency would be off by a radian at position 256.
    dtype = tower_options.dtype
    exact = torch.promote_types(dtype, torch.float32)
    state = {
        name: tensor.to(exact if name.endswith(".inv_freq") else dtype)
        for name, tensor in given.items()
    }
    network.load_state_dict(state, strict=True, assign=True)
    _restore_positions(network)
    if tower_options.gradient_checkpointing:
        recompute_blocks(network.model.vision_model.encoder.layers)
        recompute_blocks(network.cross_model.blocks())
    return network.to(tower_options.device).eval().requires_grad_(False)


def check_architecture(architecture: Mapping[str, Any], source: str) -> MpsArchitecture:
    """Check that an architecture has the fields of the published one.

    Args:
        architecture: `{"width": ..., "text": {...}, "vision": {...}, "cross": {...}}`.
        source: Origin of the architecture, for the message.

    Raises:
        RewardError: Fields are missing or unknown.
    """
    for part, published in PUBLISHED_ARCHITECTURE.items():
        given = architecture.get(part)
        if isinstance(published, Mapping):
            good = isinstance(given, Mapping) and set(given) == set(published)
            needed, got = ", ".join(published), list(given) if isinstance(given, Mapping) else given
        else:
            good, needed, got = isinstance(given, int), "a number", given
        if not good:
            raise RewardError(
                f"{source} gives the part {part} of MPS's architecture as {got}; it needs "
                f"{needed}. The published file needs no architecture: remove it, or give all fields"
            )
    return architecture


def _restore_positions(network: MpsNetwork) -> None:
    # The buffers that are in no state dict; after the meta device they have no values.
    for tower in (network.model.text_model, network.model.vision_model):
        embeddings = tower.embeddings
        count = embeddings.position_ids.shape[-1]
        embeddings.register_buffer("position_ids", torch.arange(count)[None], persistent=False)
    left = [n for n, t in [*network.named_parameters(), *network.named_buffers()] if t.is_meta]
    assert not left, f"tensors without values: {left}"

"""Convert the names of a CLIP's tensors between transformers' `CLIPModel` and open_clip.

Both libraries have the same weights. transformers splits the attention's input projection into
query, key and value, and keeps the two final projections as linear layers, so transposed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from rewards.core.weight_file import check_keys
from rewards.errors import RewardError

POSITION_IDS = tuple(f"{side}_model.embeddings.position_ids" for side in ("text", "vision"))
"""Position counters that older files store as if they were weights."""

_TRANSPOSED = {
    "text_projection": "text_projection.weight",
    "visual.proj": "visual_projection.weight",
}
_RENAMED = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # spelt like this in the files
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TOWERS = {"transformer": "text_model", "visual.transformer": "vision_model"}
_INNER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def is_transformers_layout(names: Iterable[str]) -> bool:
    """Return whether tensors have the names of `CLIPModel`."""
    return any(name.startswith(("vision_model.", "text_model.")) for name in names)


def transformers_names(name: str) -> list[str]:
    """Return the names of `CLIPModel` for one tensor of open_clip: one name, or q, k and v.

    Args:
        name: Name in open_clip, of a CLIP with plain vision and text transformers.

    Raises:
        RewardError: transformers has no such tensor: the architecture is a different one.
    """
    if name in _TRANSPOSED:
        return [_TRANSPOSED[name]]
    if name in _RENAMED:
        return [_RENAMED[name]]
    side, _, rest = name.partition(".resblocks.")
    layer, _, part = rest.partition(".")
    stem, _, leaf = part.rpartition(".")
    if side in _TOWERS:
        block = f"{_TOWERS[side]}.encoder.layers.{layer}"
        if stem in _INNER:
            return [f"{block}.{_INNER[stem]}.{leaf}"]
        if part.startswith("attn.in_proj_"):
            leaf = part.removeprefix("attn.in_proj_")
            return [f"{block}.self_attn.{which}_proj.{leaf}" for which in "qkv"]
    raise RewardError(
        f"transformers' CLIP has no tensor like {name}: its layout is for plain vision "
        "transformers only. Give an architecture such as ViT-H-14, or a file in open_clip's layout"
    )


def to_open_clip(
    state: Mapping[str, Tensor], expected: Mapping[str, torch.Size], what: str, path: Path
) -> dict[str, Tensor]:
    """Convert a file of `CLIPModel` to open_clip's names and layouts.

    Args:
        state: Tensors of the file; `position_ids` are left out.
        expected: Shapes of the architecture by open_clip's names.
        what: Name of the architecture, for the message.
        path: Path of the file, for the message.

    Returns:
        Tensors by the names of `expected`.

    Raises:
        RewardError: A name is missing or unknown, or a shape differs; the message uses the file's
            own names.
    """
    state = {name: tensor for name, tensor in state.items() if name not in POSITION_IDS}
    check_keys(_transformers_shapes(expected), state, what, path)
    converted = {}
    for name in expected:
        parts = [state[source] for source in transformers_names(name)]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        converted[name] = tensor.T.contiguous() if name in _TRANSPOSED else tensor
    return converted


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert open_clip's tensors to the names and layouts of `CLIPModel`.

    Raises:
        RewardError: transformers' CLIP has no such architecture.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        sources = transformers_names(name)
        turned = tensor.T if name in _TRANSPOSED else tensor
        parts = turned.chunk(3) if len(sources) == 3 else [turned]
        converted |= {s: part.contiguous() for s, part in zip(sources, parts, strict=True)}
    return converted


def _transformers_shapes(expected: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    shapes: dict[str, torch.Size] = {}
    for name, shape in expected.items():
        sources = transformers_names(name)
        part = torch.Size((shape[0] // 3, *shape[1:])) if len(sources) == 3 else shape
        turned = torch.Size(reversed(part)) if name in _TRANSPOSED else part
        shapes |= dict.fromkeys(sources, turned)
    return shapes

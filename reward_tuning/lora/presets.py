"""The presets of `lora.targets`: which linear layers get an adapter, by their names in a block."""

from __future__ import annotations

from collections.abc import Iterable

from base_model.core.family import FAMILY

ATTENTION = (
    "attn1.to_q",
    "attn1.to_k",
    "attn1.to_v",
    "attn1.to_out.0",
    "attn1.add_q_proj",
    "attn1.add_k_proj",
    "attn1.add_v_proj",
    "attn1.to_add_out",
)
MLP = ("ff.net.0.proj", "ff.net.2", "txt_ff.net.0.proj", "txt_ff.net.2")
# None: every linear layer, as in the original trainer (677 modules of the 12B, 401 of the 7B).
PRESETS: dict[str, tuple[str, ...] | None] = {
    "attention": ATTENTION,
    "attention+mlp": (*ATTENTION, *MLP),
    "all-linear": None,
}


def in_block(path: str) -> str:
    """Return a path without its block: `attn1.to_q` for `transformer_blocks.3.attn1.to_q`."""
    parts = path.split(".")
    if parts[0] == FAMILY.blocks and len(parts) > 2:
        return ".".join(parts[2:])
    return path


def in_preset(paths: Iterable[str], preset: str) -> tuple[str, ...]:
    """Return those of the paths of linear layers that a preset names."""
    kinds = PRESETS[preset]
    return tuple(path for path in paths if kinds is None or in_block(path) in kinds)


def named(paths: Iterable[str], name: str) -> list[str]:
    """Return those of the paths that a name means: the full path, or the end of paths."""
    return [path for path in paths if path == name or path.endswith("." + name)]

"""Names of the transformer's modules in the original layout and in diffusers.

They differ only in the attention of the blocks with a separate text stream. The VAE's names are the
same in both layouts.
"""

import re
from collections.abc import Iterable
from typing import Literal

from base_model.core.family import FAMILY

Layout = Literal["original", "diffusers"]

# (original, diffusers), after `transformer_blocks.N.`
_RENAMED = (
    ("attn2.to_q", "attn1.add_q_proj"),
    ("attn2.to_k", "attn1.add_k_proj"),
    ("attn2.to_v", "attn1.add_v_proj"),
    ("attn2.to_out.0", "attn1.to_add_out"),
    ("attn2.norm_q", "attn1.norm_added_q"),
    ("attn2.norm_k", "attn1.norm_added_k"),
)
_TO_DIFFUSERS = dict(_RENAMED)
_TO_ORIGINAL = {diffusers: original for original, diffusers in _RENAMED}


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    alternatives = "|".join(re.escape(name) for name in names)
    return re.compile(rf"^({FAMILY.blocks}\.\d+)\.({alternatives})(?=\.|$)")


_ORIGINAL_NAME = _pattern(_TO_DIFFUSERS)
_DIFFUSERS_NAME = _pattern(_TO_ORIGINAL)


def to_diffusers(name: str) -> str:
    """Return diffusers' name of a module or parameter for its original name."""
    return _ORIGINAL_NAME.sub(lambda m: f"{m[1]}.{_TO_DIFFUSERS[m[2]]}", name)


def to_original(name: str) -> str:
    """Return the original name of a module or parameter for its name in diffusers."""
    return _DIFFUSERS_NAME.sub(lambda m: f"{m[1]}.{_TO_ORIGINAL[m[2]]}", name)


def layout_of(names: Iterable[str]) -> Layout:
    """Detect the layout of a transformer from its parameter names.

    A transformer without a block with a separate text stream has the same names in both layouts; it
    counts as `diffusers`.
    """
    return "original" if any(_ORIGINAL_NAME.match(name) for name in names) else "diffusers"

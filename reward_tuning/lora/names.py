"""Names of a LoRA's tensors: one layout for memory, checkpoints and exports, built and read here.

`<module path>.lora_A.weight` is down `(r, in)`, `<module path>.lora_B.weight` is up `(out, r)`:
peft's names, which diffusers' readers share. `formats/keys.py` reads the names of other tools.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
PEFT_PREFIX = "base_model.model."
"""peft's prefix of a module path in its files."""
DIFFUSERS_PREFIX = "transformer."
"""diffusers' prefix of a transformer's module path, and of a config's fields in a header."""
CONFIG_IN_HEADER = "lora_adapter_metadata"
"""diffusers' name for an adapter's config in the header of its safetensors file."""

Factors = tuple[Tensor, Tensor]
"""Down `(r, in)` and up `(out, r)` of one module."""


def tensors_by_name(factors: Mapping[str, Factors], prefix: str = "") -> dict[str, Tensor]:
    """Name the factors of each module.

    Args:
        factors: Module path to factors.
        prefix: Prefix of each name.
    """
    tensors = {}
    for path, (down, up) in factors.items():
        tensors[f"{prefix}{path}{DOWN}"] = down
        tensors[f"{prefix}{path}{UP}"] = up
    return tensors


def factors_by_module(tensors: Mapping[str, Tensor]) -> dict[str, Factors]:
    """Return module path to factors, of tensors as `tensors_by_name` names them."""
    paths = [name.removesuffix(DOWN) for name in tensors if name.endswith(DOWN)]
    return {path: (tensors[path + DOWN], tensors[path + UP]) for path in paths}

"""The original EasyAnimate trainer's file, also read by its ComfyUI nodes.

Keys are `lora_unet__<original path, "." as "_">` + `.lora_down.weight`, `.lora_up.weight`,
`.alpha`, with the original model's module names. Both directions go through a table of the
transformer's own module paths, since an underscore may stand for a dot or for itself.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from base_model.key_map import to_original
from base_model.training.weight_file import safetensors_bytes
from reward_tuning.errors import TuningError
from reward_tuning.exports.fitting import fit
from reward_tuning.exports.tensor_file import read_tensors
from reward_tuning.lora import LoraWeights, linear_modules
from reward_tuning.whole_file import EXPORT_AGAIN, write_whole

# The double underscore is mandatory: with one, the original reader takes `proj_out` for `proj`.
PREFIX = "lora_unet__"
_DOWN, _UP, _ALPHA = "lora_down.weight", "lora_up.weight", "alpha"


def original_key(path: str) -> str:
    """`transformer_blocks.0.attn1.add_q_proj` -> `lora_unet__transformer_blocks_0_attn2_to_q`."""
    return PREFIX + to_original(path).replace(".", "_")


def write(weights: LoraWeights, path: Path, dtype: torch.dtype) -> None:
    """Write the file; a former one of the same name is replaced. Alpha stays fp32."""
    tensors: dict[str, Tensor] = {}
    for module, (down, up) in weights.state.items():
        key = original_key(module)
        tensors[f"{key}.{_DOWN}"] = down.to(dtype).contiguous()
        tensors[f"{key}.{_UP}"] = up.to(dtype).contiguous()
        tensors[f"{key}.{_ALPHA}"] = torch.tensor(weights.alpha, dtype=torch.float32)
    write_whole(path, safetensors_bytes(tensors, _hashes(tensors)), advice=EXPORT_AGAIN)


def read(path: Path, transformer: nn.Module) -> LoraWeights:
    """Read the file, checked against the transformer.

    A module without alpha has strength 1 (alpha = rank), as in the original reader.

    Raises:
        TuningError: a damaged or foreign file, an adapter for another model, or one with different
            ranks or strengths in different modules.
    """
    tensors, _ = read_tensors(path)
    where = str(path)
    table = {original_key(p): p for p in linear_modules(transformer)}
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        module, _, part = key.partition(".")
        if not module.startswith(PREFIX) or part not in (_DOWN, _UP, _ALPHA):
            raise TuningError(
                f"{where}: key {key!r} is none of the original trainer's ({PREFIX}<module>."
                f"{_DOWN}, .{_UP}, .{_ALPHA})"
            )
        found.setdefault(module, {})[part] = tensor
    for module, parts in found.items():
        if module not in table:
            raise TuningError(
                f"{where}: module {module} is not in this transformer; the adapter is for another "
                "model (compare the number of blocks)"
            )
        if _DOWN not in parts or _UP not in parts:
            raise TuningError(f"{where}: module {module} lacks its {_DOWN} or {_UP}")
    sizes = {int(parts[_DOWN].shape[0]) for parts in found.values()}
    strengths = {
        float(parts[_ALPHA]) if _ALPHA in parts else float(parts[_DOWN].shape[0])
        for parts in found.values()
    }
    if len(sizes) > 1 or len(strengths) > 1:
        raise TuningError(
            f"{where}: ranks {sorted(sizes)} and alphas {sorted(strengths)} differ between modules;"
            " an adapter here has one rank and one alpha"
        )
    pairs = {table[module]: (parts[_DOWN], parts[_UP]) for module, parts in found.items()}
    rank, alpha = (sizes.pop(), strengths.pop()) if found else (0, 0.0)
    return fit(pairs, rank, alpha, transformer, where)


def _hashes(tensors: dict[str, Tensor]) -> dict[str, str]:
    """The two digests that kohya-style readers index files by.

    One is SHA-256 of the data behind the header; the older one the first eight digits of SHA-256
    over 64 KiB from 1 MiB on, of the file without metadata.
    """
    plain = safetensors.torch.save(tensors)
    data = 8 + int.from_bytes(plain[:8], "little")
    return {
        "sshs_model_hash": hashlib.sha256(memoryview(plain)[data:]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(plain[0x100000:0x110000]).hexdigest()[:8],
    }

"""Turn a file's tensors into `LoraWeights` for a transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reward_tuning.errors import TuningError, short_repr
from reward_tuning.lora.adapter import LoraWeights, linear_modules
from reward_tuning.lora.formats.adapter_config import Strength, checked_alpha
from reward_tuning.lora.formats.keys import LoraKey, Part, lora_keys, module_paths
from reward_tuning.lora.names import PEFT_PREFIX

_FLOATS = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)
_NAMES: Mapping[Part, str] = {"down": "down (lora_A)", "up": "up (lora_B)", "alpha": "alpha"}


@dataclass(frozen=True)
class _Module:
    """The adapter of a module: down (r, in), up (out, r), fp32; its strength is alpha / r."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


def fitted(
    tensors: Mapping[str, Tensor], strength: Strength | None, transformer: nn.Module, where: str
) -> LoraWeights:
    """Check a file's tensors, and return them as an adapter in the model's order.

    Args:
        tensors: Tensors by key, of any float dtype.
        strength: Strength in the config; None without a config: then a module without an alpha of
            its own has alpha = rank.
        transformer: Model of the adapter; may be on the meta device.
        where: The file, for messages.

    Returns:
        The adapter, of one rank and one strength (`uniform`).

    Raises:
        TuningError: The tensors are not a plain LoRA, are for another model, or have values that
            are not finite; the message names the first such key.
    """
    keys = checked_keys(tensors, where)
    paths = module_paths((key.stem for key in keys), transformer, where)
    found: dict[str, dict[Part, LoraKey]] = {}
    for key in keys:
        parts = found.setdefault(key.stem, {})
        if key.part in parts:
            raise TuningError(
                f"{where}: {short_repr(parts[key.part].key)} and {short_repr(key.key)} are the "
                "same factor of one module; save each adapter in a file of its own"
            )
        parts[key.part] = key
    linear = linear_modules(transformer)
    modules: dict[str, _Module] = {}
    for stem, parts in found.items():
        for part in ("down", "up"):
            if part not in parts:
                raise TuningError(f"{where}: module {short_repr(stem)} lacks its {_NAMES[part]}")
        own = {part: tensors[key.key] for part, key in parts.items()}
        path = paths[stem]
        modules[path] = _module(own, strength, stem, path, linear[path], where)
    return uniform([(path, modules[path]) for path in linear if path in modules])


def checked_keys(tensors: Mapping[str, Tensor], where: str) -> list[LoraKey]:
    """Parse a file's keys, and check each tensor.

    Raises:
        TuningError: The file is not a plain LoRA, or a tensor cannot be a factor or an alpha.
    """
    keys = lora_keys(tensors, where)
    for key in keys:
        _check_tensor(tensors[key.key], key, where)
    return keys


def _check_tensor(tensor: Tensor, key: LoraKey, where: str) -> None:
    what = f"{where}: {short_repr(key.key)}"
    if tensor.layout is not torch.strided:
        raise TuningError(f"{what} is a sparse tensor; save dense ones")
    if key.part == "alpha":
        if tensor.numel() != 1 or tensor.is_complex():
            raise TuningError(
                f"{what} has shape {tuple(tensor.shape)} and type {_type(tensor)}; alpha must be "
                "one number"
            )
        checked_alpha(tensor.item() if tensor.dtype != torch.bool else None, what)
        return
    if tensor.dtype not in _FLOATS:
        allowed = ", ".join(str(one).removeprefix("torch.") for one in _FLOATS)
        raise TuningError(f"{what} is of type {_type(tensor)}; allowed: {allowed}")
    if tensor.dim() not in (2, 3, 4, 5):
        raise TuningError(
            f"{what} has shape {tuple(tensor.shape)}; a factor is a matrix (or a 1x1 convolution)"
        )
    if 0 in tensor.shape:
        raise TuningError(f"{what} has shape {tuple(tensor.shape)}: a rank of 0 or no values")
    if any(size != 1 for size in tensor.shape[2:]):
        raise TuningError(
            f"{what} has shape {tuple(tensor.shape)[:6]}, a convolution's; only linear layers take "
            "an adapter here"
        )
    bad = tensor.numel() - int(torch.isfinite(tensor.float()).sum())
    if bad:
        raise TuningError(
            f"{what}: {bad} of {tensor.numel()} values are NaN or infinite; the training "
            "diverged or the file is damaged: use an earlier checkpoint"
        )


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _module(
    own: Mapping[Part, Tensor],
    strength: Strength | None,
    stem: str,
    path: str,
    linear: nn.Linear,
    where: str,
) -> _Module:
    down, up = (own[part].flatten(1).to(torch.float32) for part in ("down", "up"))
    name = stem.removeprefix(PEFT_PREFIX)
    rank, alpha = (strength or Strength()).of(name, down.shape[0])
    expected = ((rank, linear.in_features), (linear.out_features, rank))
    got = (tuple(down.shape), tuple(up.shape))
    if got != expected:
        other_size = (down.shape[1], up.shape[0]) != (linear.in_features, linear.out_features)
        raise TuningError(
            f"{where}: module {path} has down {got[0]} and up {got[1]}; this transformer at rank "
            f"{rank} needs {expected[0]} and {expected[1]}"
            + ("; the LoRA is for a model of another size" if other_size else "")
        )
    if "alpha" in own:
        given = checked_alpha(own["alpha"].item(), f"{where}: {short_repr(stem)}.alpha")
        if strength is not None and not torch.isclose(
            torch.tensor(given), torch.tensor(alpha), rtol=1e-3
        ):
            raise TuningError(
                f"{where}: module {path} has alpha {given:g} in its tensors and {alpha:g} in the "
                "config; remove the wrong one"
            )
        alpha = given
    if not torch.isfinite(up * (alpha / rank)).all():
        raise TuningError(
            f"{where}: module {path}: its up factor times alpha / rank ({alpha:g} / {rank}) "
            "exceeds float32; the file is damaged, or alpha is wrong"
        )
    return _Module(down, up, alpha)


def uniform(modules: Sequence[tuple[str, _Module]]) -> LoraWeights:
    """Return an adapter of one rank and one strength with the effect of modules that differ.

    The rank is the largest; modules of smaller rank are padded with zeros. If strengths differ,
    they are multiplied into the up factors, and alpha is the rank. An adapter of one rank and one
    strength stays unchanged, bit for bit.
    """
    rank = max(module.rank for _, module in modules)
    strengths = {module.alpha / module.rank for _, module in modules}
    same = len(strengths) == 1
    if same and all(module.rank == rank for _, module in modules):
        alpha = modules[0][1].alpha
    else:
        alpha = strengths.pop() * rank if same else float(rank)
    state = {}
    for path, module in modules:
        missing = rank - module.rank
        up = module.up if same else module.up * (module.alpha / module.rank)
        state[path] = (
            nn.functional.pad(module.down, (0, 0, 0, missing)) if missing else module.down,
            nn.functional.pad(up, (0, missing)) if missing else up,
        )
    return LoraWeights(rank, alpha, state)

"""From a file's pairs of tensors to `LoraWeights` that fit a given transformer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from reward_tuning.errors import TuningError
from reward_tuning.lora import LoraWeights, linear_modules

# Fields of a peft config that change what the two matrices mean, and the value of plain LoRA.
_PLAIN: dict[str, object] = {
    "use_rslora": False,
    "use_dora": False,
    "fan_in_fan_out": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "bias": "none",
}


def plain_config(config: Mapping[str, object], where: str) -> tuple[int, float]:
    """Rank and alpha of a peft config.

    Raises:
        TuningError: no rank or alpha in it, or another kind of adapter than plain LoRA.
    """
    kind = str(config.get("peft_type", "LORA")).rpartition(".")[2]
    if kind != "LORA":
        raise TuningError(f"{where}: the adapter is of peft type {kind}; only LORA is supported")
    for name, plain in _PLAIN.items():
        value = config.get(name)
        if value is not None and value != plain:
            raise TuningError(
                f"{where}: {name} is {value!r}; only plain LoRA ({name} {plain!r}) is supported"
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float):
        raise TuningError(f"{where}: r is {rank!r} and lora_alpha {alpha!r}; both must be numbers")
    return rank, float(alpha)


def pair_up(tensors: Mapping[str, Tensor], where: str) -> dict[str, tuple[Tensor, Tensor]]:
    """`<path>.lora_A.weight`, `<path>.lora_B.weight` -> path: (down, up).

    Raises:
        TuningError: a key of another form, or one of the two missing.
    """
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        path, _, half = key.removesuffix(".weight").rpartition(".")
        if half not in ("lora_A", "lora_B") or not key.endswith(".weight"):
            raise TuningError(
                f"{where}: key {key!r} is none of a LoRA's; expected are "
                "<module>.lora_A.weight and <module>.lora_B.weight"
            )
        halves.setdefault(path, {})[half] = tensor
    for path, pair in halves.items():
        if len(pair) != 2:
            raise TuningError(f"{where}: module {path} has only {next(iter(pair))} of its pair")
    return {path: (pair["lora_A"], pair["lora_B"]) for path, pair in halves.items()}


def fit(
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    rank: int,
    alpha: float,
    transformer: nn.Module,
    where: str,
) -> LoraWeights:
    """Check every pair against the transformer's modules and order them as the model does.

    Args:
        pairs: diffusers module path -> (down, up), any float dtype.
        rank: which every module must have.
        alpha: of every module.
        transformer: the model the adapter is for; may be on the meta device.
        where: the file's name, for errors.

    Returns:
        The weights in fp32.

    Raises:
        TuningError: an empty file, a module the model lacks, or a shape that does not fit.
    """
    modules = linear_modules(transformer)
    if not pairs:
        raise TuningError(f"{where}: holds no LoRA tensors")
    lacking = [path for path in pairs if path not in modules]
    if lacking:
        raise TuningError(
            f"{where}: {len(lacking)} of {len(pairs)} modules are not in this transformer, first "
            f"{min(lacking)}; the adapter is for another model (compare the number of blocks)"
        )
    state = {}
    for path, module in modules.items():
        if path not in pairs:
            continue
        down, up = pairs[path]
        wanted = ((rank, module.in_features), (module.out_features, rank))
        got = (tuple(down.shape), tuple(up.shape))
        if got != wanted:
            raise TuningError(
                f"{where}: module {path} has down {got[0]} and up {got[1]}; this transformer at "
                f"rank {rank} needs {wanted[0]} and {wanted[1]}"
            )
        state[path] = (down.to(torch.float32), up.to(torch.float32))
    return LoraWeights(rank, alpha, state)

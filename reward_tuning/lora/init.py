"""Start an adapter from an existing LoRA, such as one fine-tuned on a user's own clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import (
    LoraSpec,
    LoraWeights,
    adapter_state,
    attach,
    load_adapter_state,
    select_targets,
)
from reward_tuning.lora.combining import has_no_effect, no_effect_warning
from reward_tuning.lora.export import check_adapter, import_adapter
from reward_tuning.lora.formats.adapter_files import find_adapter
from reward_tuning.lora.module_shapes import transformer_shapes
from reward_tuning.lora.names import Factors, factors_by_module, tensors_by_name
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.schema.sections import LoraSection


def attach_adapter(
    transformer: nn.Module, lora: LoraSection, *, seed: int, progress: ProgressFn = silent
) -> list[nn.Parameter]:
    """Attach the adapter that a recipe describes, with the start that it names.

    Args:
        transformer: Base model without an adapter.
        lora: The resolved recipe's section.
        seed: Seed of a random start.
        progress: Called with a warning if the LoRA has no effect.

    Returns:
        The adapter's parameters, in model order.

    Raises:
        TuningError: The LoRA cannot be read, is for another model, or has another rank, alpha or
            other modules than the recipe.
    """
    parameters = attach(transformer, LoraSpec(lora.rank, lora.alpha, lora.targets), seed=seed)
    if lora.init is not None:
        weights = import_adapter(Path(lora.init), transformer)
        random_start = factors_by_module(adapter_state(transformer))
        _check_fit(weights, lora, tuple(random_start))
        if has_no_effect(weights):
            progress(ProgressEvent("loading", note=no_effect_warning(lora.init)))
        load_adapter_state(transformer, tensors_by_name(_trainable(weights, random_start)))
    return parameters


def check_start(lora: LoraSection, transformer: nn.Module | None) -> str:
    """Check that an adapter can start as the recipe asks.

    Args:
        lora: The resolved recipe's section.
        transformer: Base model, possibly on the meta device. None if it is not known yet: the file
            is read but not checked against the base.

    Returns:
        A warning for the user; empty for none.

    Raises:
        TuningError: As `attach_adapter`.
    """
    if lora.init is None:
        return ""
    if transformer is None:
        check_adapter(Path(lora.init))
        return ""
    weights = import_adapter(Path(lora.init), transformer)
    _check_fit(weights, lora, select_targets(transformer, lora.targets))
    return no_effect_warning(lora.init) if has_no_effect(weights) else ""


def check_start_in(lora: LoraSection | None, folder: Path | None) -> str:
    """Check a recipe's start against the generator in a folder (`folder_if_here`).

    Args:
        lora: The resolved recipe's section; None if every weight is trained.
        folder: Folder of the generator; None if it must be downloaded first.

    Returns:
        As `check_start`.

    Raises:
        TuningError: As `attach_adapter`.
        GeneratorError: The generator is not an EasyAnimateV5.1.
    """
    if lora is None or lora.init is None:
        return ""
    return check_start(lora, None if folder is None else transformer_shapes(folder))


def _check_fit(weights: LoraWeights, lora: LoraSection, paths: Sequence[str]) -> None:
    """Compare the LoRA's rank, alpha and modules with the recipe's."""
    same = math.isclose(weights.alpha, lora.alpha, rel_tol=1e-6)
    if weights.rank != lora.rank or not same:
        raise TuningError(
            f"lora.init: {lora.init} has rank {weights.rank} and alpha {weights.alpha:g}, the "
            f"recipe {lora.rank} and {lora.alpha:g}; set lora.rank={weights.rank} "
            f"lora.alpha={weights.alpha:g}"
        )
    if weights.state.keys() != set(paths):
        others = sorted(set(paths) ^ weights.state.keys())
        raise TuningError(
            f"lora.init: {lora.init} adapts {len(weights.state)} modules, lora.targets selects "
            f"{len(paths)} (the first that differs: {others[0]}); set the targets that the LoRA "
            "was trained with"
        )


def _trainable(weights: LoraWeights, random_start: Mapping[str, Factors]) -> dict[str, Factors]:
    """Return a LoRA's factors in which every row of down can be trained.

    The reader pads a module of smaller rank with rows of down and columns of up that are both 0,
    which would never get a gradient. Such a row takes the random start; its product stays 0.
    """
    state = {}
    for path, (down, up) in weights.state.items():
        dead = (down == 0).all(dim=1) & (up == 0).all(dim=0)
        start = random_start[path][0].to(down.device)
        state[path] = (torch.where(dead[:, None], start, down), up)
    return state


def adapter_file(path: Path) -> Path:
    """Return the file with an adapter's tensors.

    Raises:
        TuningError: There is no adapter.
    """
    return find_adapter(path).weights

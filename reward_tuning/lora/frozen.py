"""A LoRA that stays as it is under the one that is trained.

On resident float32 weights it is merged, so it costs nothing: W' = W + strength * up down. Weights
that are rounded, packed or moved keep theirs, and its product is added to each layer's output in
float32, as an adapter's is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from base_model.generator import Generator
from base_model.memory.modes import MODES
from reward_tuning.files.hashes import file_sha256
from reward_tuning.lora.adapter import LoraWeights, linear_modules
from reward_tuning.lora.combining import has_no_effect, no_effect_warning
from reward_tuning.lora.export import check_adapter, import_adapter
from reward_tuning.lora.init import adapter_file
from reward_tuning.lora.module_shapes import transformer_shapes
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.schema.locate import adapter_place
from reward_tuning.schema.sections import GeneratorSection


class FrozenAdapter:
    """A LoRA on a transformer, with a switch.

    Args:
        transformer: Base model without an adapter; changed in place. Adapters that are attached
            later are added on top.
        weights: The LoRA.
        merged: Add it to the weights, which must be float32 and stay where they are. A copy of the
            adapted weights is kept, so that the switch restores them to the bit.
    """

    def __init__(self, transformer: nn.Module, weights: LoraWeights, *, merged: bool) -> None:
        layers = linear_modules(transformer)
        self._on = False
        self._switch: list[Callable[[bool], None]] = []
        device = next(transformer.parameters()).device
        for path, (down, up) in weights.state.items():
            factors = down.to(device, torch.float32), up.to(device, torch.float32)
            switch = _merge if merged else _add
            self._switch.append(switch(layers[path], *factors, weights.strength))
        self._set(True)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Make the transformer the one without this LoRA, bit for bit, within the context."""
        before = self._on
        self._set(False)
        try:
            yield
        finally:
            self._set(before)

    def _set(self, on: bool) -> None:
        if on != self._on:
            for switch in self._switch:
                switch(on)
            self._on = on


@torch.no_grad()
def _merge(layer: nn.Linear, down: Tensor, up: Tensor, strength: float) -> Callable[[bool], None]:
    assert layer.weight.dtype == torch.float32, layer.weight.dtype
    plain = layer.weight.detach().clone()
    changed = plain + strength * (up @ down)

    @torch.no_grad()
    def switch(on: bool) -> None:
        layer.weight.copy_(changed if on else plain)

    return switch


def _add(layer: nn.Linear, down: Tensor, up: Tensor, strength: float) -> Callable[[bool], None]:
    handles: list[Any] = []

    def after(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        del module
        change = F.linear(F.linear(args[0].to(down.dtype), down), up) * strength
        return out + change.to(out.dtype)

    def switch(on: bool) -> None:
        if on:
            handles.append(layer.register_forward_hook(after))
        else:
            handles.pop().remove()

    return switch


def frozen_adapter(
    generator: Generator, section: GeneratorSection, progress: ProgressFn = silent
) -> FrozenAdapter | None:
    """Put the LoRA of `generator.adapter` on a loaded generator; None where there is none.

    Args:
        generator: As the section describes it, without an adapter.
        section: Section of the resolved recipe.
        progress: Called with a warning if the LoRA has no effect.

    Raises:
        TuningError: The LoRA cannot be read or is for another model.
    """
    if section.adapter is None:
        return None
    weights = import_adapter(adapter_place(section.adapter), generator.transformer)
    if has_no_effect(weights):
        progress(ProgressEvent("loading", note=no_effect_warning(section.adapter)))
    return FrozenAdapter(generator.transformer, weights, merged=can_merge(section))


def frozen_sha256(section: GeneratorSection) -> str:
    """Return the hash of the file of `generator.adapter`; empty where there is none.

    Raises:
        TuningError: There is no adapter.
    """
    if section.adapter is None:
        return ""
    return file_sha256(adapter_file(adapter_place(section.adapter)))


def can_merge(section: GeneratorSection) -> bool:
    """Return whether a generator's weights can take a LoRA in: float32, unpacked, unmoved."""
    moved = MODES[section.memory].blocks_rest or MODES[section.memory].blocks_shared
    return section.dtype == "float32" and section.quantise is None and not moved


def check_frozen(section: GeneratorSection, folder: Path | None) -> None:
    """Check that `generator.adapter` fits.

    Args:
        section: Section of the resolved recipe.
        folder: Folder of the generator; None if it must be downloaded first, and then the file is
            read but not checked against the model.

    Raises:
        TuningError: The LoRA cannot be read or is for another model.
    """
    if section.adapter is None:
        return
    place = adapter_place(section.adapter)
    if folder is None:
        check_adapter(place)
    else:
        import_adapter(place, transformer_shapes(folder))

"""A LoRA on a diffusers pipeline, in two lines and without peft.

    from reward_tuning import load_lora
    load_lora(pipe, "lora.safetensors", strength=0.7)

Forward hooks add the LoRA's part to the output of each layer: weights, names and classes of the
pipeline stay as they are, so saving, offloading and unloading work as before.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.hooks import RemovableHandle

from base_model.networks.corrections import correct_reversibly, uncorrected
from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.combining import has_no_effect, no_effect_warning
from reward_tuning.lora.export import import_adapter
from reward_tuning.lora.names import Factors
from reward_tuning.lora.schedules import Schedule, factor_at, noise_level, schedule_of

_LOG = logging.getLogger(__name__)

_NOTES = "_reward_tuning_loras"


@dataclass
class _Notes:
    """What is on a transformer, kept in its attribute `_NOTES` so that both are freed together.

    Attributes:
        loras: LoRAs that are loaded.
        undo: Undoes the corrections; None where `load_lora` made none.
    """

    loras: set[LoadedLora] = field(default_factory=set)
    undo: Callable[[], None] | None = None


def load_lora(
    pipe: Any,
    file: str | Path,
    *,
    strength: float = 1.0,
    schedule: str | Schedule | None = None,
    corrections: bool = True,
) -> LoadedLora:
    """Put a LoRA on a diffusers pipeline of EasyAnimateV5.1; several add up.

    Where the installed diffusers computes something else than the published model, whose LoRA this
    is, the transformer is corrected, and a warning in the log says so.

    Args:
        pipe: An EasyAnimate pipeline of diffusers, or its transformer; not compiled yet.
        file: A LoRA in any layout of docs/lora.md, or a run folder.
        strength: 1 is as trained, 0 the base.
        schedule: Strength by noise level (`reward_tuning.lora.schedules.schedule_of`), such as
            `annealed` or `below:0.7`: the base early, the LoRA late. None is constant.
        corrections: Correct the transformer. False leaves it as it is.

    Returns:
        The loaded LoRA: `unload()` it, or change its `strength` and `schedule`.

    Raises:
        TuningError: The pipeline is of another model or compiled, or the LoRA cannot be read or
            does not fit.
    """
    transformer = _transformer(pipe)
    weights = import_adapter(file, transformer)
    loaded = LoadedLora(transformer, weights, strength, schedule)
    if has_no_effect(weights):
        _LOG.warning(no_effect_warning(file))
    if faults := uncorrected(transformer):
        _announce(faults, corrections)
        if corrections:
            _notes(transformer).undo = correct_reversibly(transformer)
    loaded.attach()
    return loaded


class LoadedLora:
    """A LoRA on a transformer; as a context it unloads itself at the end.

    Args:
        transformer: Model of the LoRA.
        weights: The LoRA.
        strength: See `load_lora`.
        schedule: See `load_lora`.

    Attributes:
        schedule: Strength by noise level; None is constant.
    """

    def __init__(
        self,
        transformer: nn.Module,
        weights: LoraWeights,
        strength: float,
        schedule: str | Schedule | None,
    ) -> None:
        self.schedule = schedule_of(schedule)
        self.strength = strength
        self._transformer = transformer
        self._own = weights.strength
        self._state: dict[str, Factors] = dict(weights.state)
        self._handles: list[RemovableHandle] = []
        self._factor = 1.0  # of the schedule, in the current call

    @property
    def strength(self) -> float:
        """Strength where the schedule is 1; 1 is as trained."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        if not math.isfinite(value):
            raise TuningError(f"the LoRA's strength is {value}; allowed: a finite number")
        self._strength = float(value)

    def attach(self) -> None:
        """Add the hooks."""
        modules = dict(self._transformer.named_modules())
        before = self._transformer.register_forward_pre_hook(self._look, with_kwargs=True)
        self._handles = [before]
        self._handles += [
            modules[path].register_forward_hook(self._layer(path)) for path in self._state
        ]
        _notes(self._transformer).loras.add(self)

    def unload(self) -> None:
        """Remove the LoRA; with the last one, also the corrections that `load_lora` made."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        notes = _notes(self._transformer)
        notes.loras.discard(self)
        if notes.undo is not None and not notes.loras:
            notes.undo()
            notes.undo = None

    def __enter__(self) -> LoadedLora:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unload()

    def _look(self, module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Read the noise level of the call, for the schedule."""
        del module
        if self.schedule is not None:
            self._factor = factor_at(self.schedule, noise_level(args, named))
        else:
            self._factor = 1.0

    def _layer(self, path: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]:
        def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            del module
            scale = self._own * self._strength * self._factor
            if scale == 0:
                return None  # the base, bit for bit
            x = args[0].to(output.device, torch.float32)
            if self._state[path][0].device != x.device:  # the pipeline has moved, or is offloaded
                down, up = self._state[path]
                self._state[path] = (down.to(x.device), up.to(x.device))
            down, up = self._state[path]
            return (output + linear(linear(x, down), up) * scale).to(output.dtype)

        return add


def _notes(transformer: nn.Module) -> _Notes:
    notes: _Notes | None = getattr(transformer, _NOTES, None)
    if notes is None:
        notes = _Notes()
        setattr(transformer, _NOTES, notes)
    return notes


def _transformer(pipe: Any) -> nn.Module:
    """Return a pipeline's transformer.

    Raises:
        TuningError: It is of another model, or compiled.
    """
    from diffusers import EasyAnimateTransformer3DModel

    found = getattr(pipe, "transformer", pipe)
    found = getattr(found, "_orig_mod", found)
    if not isinstance(found, EasyAnimateTransformer3DModel):
        raise TuningError(
            f"load_lora is for EasyAnimate pipelines of diffusers and their transformers; got a "
            f"{type(pipe).__name__}"
        )
    compiled = found is not getattr(pipe, "transformer", pipe) or any(
        module._compiled_call_impl is not None for module in found.modules()
    )
    if compiled:
        raise TuningError(
            "the transformer is compiled already, and would ignore the LoRA; load the LoRA first, "
            "then compile"
        )
    transformer: nn.Module = found
    return transformer


def _announce(faults: list[str], corrections: bool) -> None:
    import diffusers

    what = f"diffusers {diffusers.__version__} differs from the published EasyAnimateV5.1 in "
    what += " and ".join(faults)
    if corrections:
        _LOG.warning(
            "%s; load_lora has corrected it in this pipeline, as the LoRA was trained "
            "(corrections=False leaves it, unload() undoes it)",
            what,
        )
    else:
        _LOG.warning(
            "%s; the LoRA was trained without this difference, which is up to 1 %% of the velocity "
            "(corrections=True removes it)",
            what,
        )

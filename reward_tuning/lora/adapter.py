"""Put LoRA adapters on the EasyAnimate transformer: targets, start, state and scale.

peft implements the layers. This module selects the layers that get an adapter, names and
initialises its tensors, and keeps them in fp32 on a frozen base of any dtype.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from reward_tuning.errors import TuningError
from reward_tuning.lora.forward import use_direct_forward
from reward_tuning.lora.names import Factors, tensors_by_name
from reward_tuning.lora.presets import PRESETS, in_block, in_preset, named

ADAPTER_NAME = "default"
"""peft keeps several adapters on a model by name; here it has one."""


@dataclass(frozen=True)
class LoraSpec:
    """Size and targets of an adapter; its strength is alpha / rank.

    Attributes:
        rank: Rank r, at least 1.
        alpha: Above 0; the original trainer's defaults are rank 128, alpha 64.
        targets: Name in `presets.PRESETS`, or module names: full paths
            (`transformer_blocks.0.attn1.to_q`) or ends of paths (`to_q`, `ff.net.2`).
    """

    rank: int
    alpha: float
    targets: str | tuple[str, ...] = "attention"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise TuningError(f"lora.rank is {self.rank}; allowed: 1 or more")
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise TuningError(f"lora.alpha is {self.alpha}; allowed: a finite number above 0")


@dataclass(frozen=True)
class LoraWeights:
    """An adapter in memory, which every export format writes and reads.

    Attributes:
        rank: Rank r.
        alpha: The strength is alpha / rank.
        state: diffusers module path to factors: down `(r, in)`, up `(out, r)`.
    """

    rank: int
    alpha: float
    state: Mapping[str, Factors]

    @property
    def strength(self) -> float:
        """Factor on the product of up and down: alpha / rank."""
        return self.alpha / self.rank


def linear_modules(transformer: nn.Module) -> dict[str, nn.Linear]:
    """Return every linear layer by diffusers module path, with or without an adapter on it."""
    found: dict[str, nn.Linear] = {}
    inside = ""
    for path, module in transformer.named_modules():
        if inside and path.startswith(inside):
            continue  # a part of an adapted layer
        if isinstance(module, LoraLayer):
            base = module.get_base_layer()
            assert isinstance(base, nn.Linear)
            found[path] = base
            inside = path + "."
        elif isinstance(module, nn.Linear):
            found[path] = module
    return found


def select_targets(transformer: nn.Module, targets: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the module paths of a preset or of names on this transformer, in model order.

    Raises:
        TuningError: Unknown preset, or a name that matches no linear layer.
    """
    paths = tuple(linear_modules(transformer))
    if isinstance(targets, str):
        if targets not in PRESETS:
            raise TuningError(
                f"lora.targets is {targets!r}; allowed: the presets {', '.join(PRESETS)}, or a "
                f"list of module names among {_names(paths)}"
            )
        return in_preset(paths, targets)
    chosen: set[str] = set()
    for name in targets:
        matches = named(paths, name)
        if not matches:
            raise TuningError(
                f"lora.targets: {name!r} is not a linear layer of this transformer; allowed: full "
                f"module paths, or {_names(paths)}"
            )
        chosen.update(matches)
    if not chosen:
        raise TuningError(f"lora.targets is empty; name a preset ({', '.join(PRESETS)})")
    return tuple(p for p in paths if p in chosen)


def attach(transformer: nn.Module, spec: LoraSpec, *, seed: int) -> list[nn.Parameter]:
    """Freeze the transformer and put an fp32 adapter on it, in place.

    The adapter starts without an effect: up is 0, down is uniform in +-1/sqrt(in) (peft's
    initialisation), drawn on the CPU from a separate generator, so the same seed gives the same
    adapter on every device and no other random stream advances.

    Args:
        transformer: Base model of any dtype, on any device.
        spec: Rank, alpha and targets.
        seed: Seed of the initialisation.

    Returns:
        The adapter's parameters, in model order; nothing else requires a gradient.

    Raises:
        TuningError: Unknown targets, or an adapter is attached already.
    """
    if adapted_layers(transformer):
        raise TuningError("the transformer has an adapter already; load the generator again")
    paths = select_targets(transformer, spec.targets)
    transformer.requires_grad_(False)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        target_modules=list(paths),
        lora_dropout=0.0,  # the sweep recomputes each step, which must give the same values
        bias="none",
        init_lora_weights=False,
    )
    with torch.random.fork_rng(devices=[]):  # peft initialises its layers from the global stream
        inject_adapter_in_model(config, transformer, adapter_name=ADAPTER_NAME)
    layers = adapted_layers(transformer)
    assert set(layers) == set(paths), "peft adapted other modules than were selected"
    # peft puts an adapter on its layer's device, and the blocks may be offloaded to the CPU.
    # The first parameters of the transformer, outside its blocks, are on the device that computes.
    device = next(transformer.parameters()).device
    draw = torch.Generator().manual_seed(seed)
    parameters = []
    for layer in layers.values():
        down, up = layer.lora_A[ADAPTER_NAME], layer.lora_B[ADAPTER_NAME]
        use_direct_forward(layer, ADAPTER_NAME)
        down.to(device, torch.float32)
        up.to(device, torch.float32)
        bound = 1.0 / math.sqrt(down.in_features)
        with torch.no_grad():
            down.weight.copy_((2 * torch.rand(down.weight.shape, generator=draw) - 1) * bound)
            up.weight.zero_()
        parameters += [down.weight, up.weight]
    for parameter in parameters:
        parameter.requires_grad_()
    return parameters


def attach_weights(transformer: nn.Module, weights: LoraWeights) -> list[nn.Parameter]:
    """Put existing weights on a transformer as an adapter; see `attach`."""
    spec = LoraSpec(weights.rank, weights.alpha, tuple(weights.state))
    parameters = attach(transformer, spec, seed=0)
    load_adapter_state(transformer, tensors_by_name(weights.state))
    return parameters


def adapted_layers(transformer: nn.Module) -> dict[str, LoraLayer]:
    """Return the layers with an adapter, by module path in model order."""
    return {n: m for n, m in transformer.named_modules() if isinstance(m, LoraLayer)}


def adapter_parameters(transformer: nn.Module) -> list[nn.Parameter]:
    """Return the adapter's parameters, in model order; none without an adapter."""
    layers = adapted_layers(transformer).values()
    return [parameter for layer in layers for parameter in _parameters(layer)]


def adapter_state(transformer: nn.Module) -> dict[str, Tensor]:
    """Return the adapter's tensors by name (`names.tensors_by_name`), in model order.

    Detached but not copied, like `state_dict`: clone what must survive the next step.
    """
    layers = adapted_layers(transformer)
    return tensors_by_name({path: _detached(layer) for path, layer in layers.items()})


@torch.no_grad()
def load_adapter_state(transformer: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy tensors into the attached adapter by name, strictly; an error changes nothing.

    Raises:
        TuningError: Missing or unexpected names, or another shape.
    """
    own = adapter_state(transformer)
    missing, unexpected = own.keys() - state.keys(), state.keys() - own.keys()
    if missing or unexpected:
        raise TuningError(
            f"the adapter state does not fit: {len(missing)} tensors missing"
            f"{_first(missing)}, {len(unexpected)} unexpected{_first(unexpected)}; it was saved "
            "for other targets or another model"
        )
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            raise TuningError(
                f"the adapter state does not fit: {name} has shape {tuple(state[name].shape)}; "
                f"expected {tuple(tensor.shape)}: compare rank and model"
            )
    for name, tensor in own.items():
        tensor.copy_(state[name])


def lora_weights(transformer: nn.Module) -> LoraWeights:
    """Return a copy of the attached adapter on the CPU, as exports write it.

    Raises:
        TuningError: No adapter is attached.
    """
    layers = adapted_layers(transformer)
    if not layers:
        raise TuningError("the transformer has no adapter; attach or import one first")
    first = next(iter(layers.values()))
    state = {}
    for path, layer in layers.items():
        down, up = _detached(layer)
        state[path] = (down.to("cpu", copy=True), up.to("cpu", copy=True))
    return LoraWeights(first.r[ADAPTER_NAME], float(first.lora_alpha[ADAPTER_NAME]), state)


@contextmanager
def scaled(transformer: nn.Module, scale: float) -> Iterator[None]:
    """Multiply the adapter's effect by `scale` within the context; 0 is the base, bit for bit.

    The earlier scale is restored on exit, so contexts nest. With gradient checkpointing, run the
    backward pass in the context of its forward pass, since it recomputes blocks.

    Raises:
        TuningError: The scale is not finite.
    """
    if not math.isfinite(scale):
        raise TuningError(f"the adapter scale is {scale}; allowed: a finite number")
    layers = list(adapted_layers(transformer).values())
    before = [(layer.scaling[ADAPTER_NAME], layer.disable_adapters) for layer in layers]
    trained = [[p.requires_grad for p in _parameters(layer)] for layer in layers]
    try:
        for layer, (strength, off) in zip(layers, before, strict=True):
            layer.scaling[ADAPTER_NAME] = strength * scale
            if scale == 0 and not off:
                layer.enable_adapters(False)  # skips the adapter's products: exact, not times 0
        yield
    finally:
        for layer, (strength, off), flags in zip(layers, before, trained, strict=True):
            layer.scaling[ADAPTER_NAME] = strength
            if layer.disable_adapters != off:
                layer.enable_adapters(not off)
            # peft's switch also sets requires_grad, but scaling must not change what is trained.
            for parameter, flag in zip(_parameters(layer), flags, strict=True):
                parameter.requires_grad_(flag)


def _parameters(layer: LoraLayer) -> list[nn.Parameter]:
    return [layer.lora_A[ADAPTER_NAME].weight, layer.lora_B[ADAPTER_NAME].weight]


def _detached(layer: LoraLayer) -> Factors:
    down, up = _parameters(layer)
    return down.detach(), up.detach()


def _names(paths: tuple[str, ...]) -> str:
    return ", ".join(dict.fromkeys(in_block(p) for p in paths))


def _first(names: set[str]) -> str:
    return f" (first {min(names)})" if names else ""

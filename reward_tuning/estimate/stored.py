"""Weights that rest in the CPU's memory, or are stored packed, taken from what a device holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import EasyAnimateTransformer3DModel
from torch import nn

from base_model.core.family import FAMILY
from base_model.loading.checkpoint import empty_model
from base_model.loading.model_configs import transformer_arguments_of
from base_model.memory.modes import MODES
from reward_tuning.estimate.shapes import Shape
from reward_tuning.schema.sections import GeneratorSection

NF4_BLOCK = 64
"""Weights that share a scale of 4 bytes; other kinds have one for each output row."""
BLOCKS_AT_ONCE = 2
"""Blocks whose weights the device holds where blocks rest (`base_model.memory.block_offload`)."""
EVALUATION, HELD_OUT, SAMPLES = GATHERED = ("evaluation", "held-out", "samples")
"""Phases in which shared blocks are whole on every device."""
JUDGING = ("choice", "reward", "clips", *GATHERED)
"""Phases in which VAE and judges are on the device, where they rest between uses."""
SAMPLING = ("choice", "rollout", "sweep", "replay", "gradient", *GATHERED)
"""Phases in which the transformer runs."""


@dataclass(frozen=True)
class Block:
    """Weights of one block.

    Attributes:
        linear: Numbers in linear layers, which can be packed.
        rows: Output rows of these layers.
        largest: Numbers of the largest of them.
        widest: Most inputs or outputs of one of them that runs on every token.
        others: Numbers in other layers, biases included.
    """

    linear: int
    rows: int
    largest: int
    widest: int
    others: int

    def bytes(self, size: int, quantise: str | None) -> float:
        """Return its bytes on the device.

        Args:
            size: Bytes of a plain number.
            quantise: How linear layers are packed; None for plain.
        """
        if quantise is None:
            return (self.linear + self.others) * size
        if quantise == "nf4":
            return self.linear * (0.5 + 4 / NF4_BLOCK) + self.others * size
        return self.linear + 4 * self.rows + self.others * size


def blocks_of(shape: Shape) -> list[Block]:
    """Return every block of a transformer."""
    own, shared = shape.blocks
    few = shape.with_blocks(min(own, 1), min(shared, 1))
    arguments = transformer_arguments_of(
        Path(shape.name), few.transformer, EasyAnimateTransformer3DModel
    )
    model = empty_model(EasyAnimateTransformer3DModel, arguments)
    kinds = [_block(block) for block in getattr(model, FAMILY.blocks)]
    return [*kinds[:1] * own, *kinds[-1:] * shared]


def adjusted(
    generator: GeneratorSection,
    shape: Shape,
    phase: str,
    parts: dict[str, float],
    *,
    gpus: int,
    rows: int,
) -> dict[str, float]:
    """Return what a device holds, with weights where and as the recipe has them.

    Args:
        generator: Section of the recipe.
        shape: Shapes of the networks.
        phase: Phase of the run.
        parts: Bytes by part, with all weights on the device in the generator's dtype.
        gpus: GPUs that share the run; 0 for the CPU, where nothing rests elsewhere.
        rows: Tokens of a call of the transformer, of all clips and branches.
    """
    mode, quantise, found = MODES[generator.memory], generator.quantise, dict(parts)
    if gpus and mode.parts_rest and phase not in JUDGING:
        found["decoder"] = found["judges"] = 0.0
    rests, shared = bool(gpus) and mode.blocks_rest, gpus > 1 and mode.blocks_shared
    if phase == "text" or not (quantise or rests or shared):
        return found
    size, blocks = getattr(torch, generator.dtype).itemsize, blocks_of(shape)
    plain = sum(block.bytes(size, None) for block in blocks)
    held = [block.bytes(size, quantise) for block in blocks]
    at_work = sum(sorted(held)[-BLOCKS_AT_ONCE:]) if phase in SAMPLING else 0.0
    if rests:
        found["transformer"] += at_work - plain
    elif shared and phase not in GATHERED:
        found["transformer"] += sum(held) / gpus + at_work - plain
    else:
        found["transformer"] += sum(held) - plain
    if quantise is not None and phase in SAMPLING:
        found["activations"] += _at_a_product(quantise, size, blocks, rows)
    return found


def _at_a_product(quantise: str, size: int, blocks: Sequence[Block], rows: int) -> float:
    """Return the bytes that a product holds besides its operands and its result.

    A weight is unpacked for it, int8 and fp8 by way of float32. Products in 8 bits round their
    input by way of float32, twice, and have a result of four bytes before that in the dtype.
    """
    if quantise.endswith("-compute"):
        return rows * max(block.widest for block in blocks) * (4 + 4 + 1)
    return max(block.largest for block in blocks) * (size if quantise == "nf4" else size + 4)


def _block(block: nn.Module) -> Block:
    named = {name: one for name, one in block.named_modules() if isinstance(one, nn.Linear)}
    layers = list(named.values())
    # Modulations, in the norms, see one row for each clip.
    on_tokens = [layer for name, layer in named.items() if "norm" not in name]
    sizes = [layer.weight.numel() for layer in layers]
    every = sum(weight.numel() for weight in block.parameters())
    return Block(
        sum(sizes),
        sum(layer.out_features for layer in layers),
        max(sizes),
        max(max(layer.in_features, layer.out_features) for layer in on_tokens),
        every - sum(sizes),
    )

"""LoRA gradients on a base of few bits, against those on the float32 base.

    python -m benchmarks.quantised_gradients [--width 3072] [--tokens 256] [--only KIND ...]

Three tests, each a cosine and a relative error of the whole adapter's gradient: one guided step of
the embedded generator; one block of random weights at the 12B's width; and the same block with
activation outliers, such as trained transformers have: one of 256 channels of the norms is 30 times
as large, one of 256 inner channels of the MLPs 10 times.

int8 and nf4 need bitsandbytes; without it their rows say so. The table is Markdown, on the standard
output.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers.models.transformers.transformer_easyanimate import EasyAnimateTransformerBlock
from torch import Tensor, nn

from base_model.errors import GeneratorError
from base_model.generator import Generator, load_generator
from base_model.memory.eight_bit_compute import EightBitCompute
from base_model.memory.quantise import Codec, Quantise, QuantisedLinear, require
from base_model.sampling.guidance import Guidance, guided_velocity
from benchmarks.machine import machine
from reward_tuning.lora.adapter import LoraSpec, adapter_state, attach

PROMPT = "a large blue square moves right on a dark background"
OUTLIERS = 256
"""Channels for each one that is planted."""
INT8, FP8 = torch.int8, torch.float8_e4m3fn


@dataclass(frozen=True)
class Base:
    """One way to hold the linear layers of the blocks.

    Attributes:
        name: In the table.
        kind: As in a recipe; None leaves them.
        codec: In place of the kind's own.
        dtype: Of weights and activations.
    """

    name: str
    kind: Quantise | None = None
    codec: Codec | None = None
    dtype: torch.dtype = torch.float32


BASES = (
    Base("bfloat16", dtype=torch.bfloat16),
    Base("int8", "int8"),
    Base("fp8", "fp8"),
    Base("nf4", "nf4"),
    Base("int8-compute, not rotated", "int8-compute", EightBitCompute(INT8, 1)),
    Base("int8-compute, groups of 32", "int8-compute", EightBitCompute(INT8, 32)),
    Base("**int8-compute** (groups of 128)", "int8-compute"),
    Base("int8-compute, groups of 1024", "int8-compute", EightBitCompute(INT8, 1024)),
    Base(
        "int8-compute, backward in full",
        "int8-compute",
        EightBitCompute(INT8, exact_backward=True),
    ),
    Base("fp8-compute, not rotated", "fp8-compute", EightBitCompute(FP8, 1)),
    Base("**fp8-compute** (groups of 128)", "fp8-compute"),
    Base("fp8-compute, backward in full", "fp8-compute", EightBitCompute(FP8, exact_backward=True)),
)

Gradient = Callable[[Base | None], Tensor]
"""The adapter's gradient on a base; None is float32."""


def embedded(generator: Generator | None = None) -> Gradient:
    """Return the gradient of one guided step of the embedded generator."""
    loaded = generator or load_generator("tiny")
    text = loaded.encode_prompts([PROMPT], [""])
    loaded.transformer.enable_gradient_checkpointing()

    def gradient(base: Base | None) -> Tensor:
        model = Generator(copy.deepcopy(loaded.transformer), loaded.vae)
        if base is not None:
            change_base(model.transformer, base)
        parameters = with_adapter(model.transformer, LoraSpec(4, 4, "all-linear"))
        draw = torch.Generator().manual_seed(2)
        shape = model.latent_shape(1, 9, 64, 64)
        latents, g = (torch.randn(shape, generator=draw) for _ in range(2))
        condition = model.condition(text)
        v = guided_velocity(model, latents, 0.6, condition, Guidance(4.0), "joint")
        (v * g).sum().backward()
        return flat(parameters)

    return gradient


class OneBlock(nn.Module):
    """A transformer of one block, for adapters."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList([block])


def random_block(width: int, tokens: int, outliers: bool) -> Gradient:
    """Return the gradient through one block of random weights with a text stream of its own.

    Args:
        width: Channels, a multiple of 64.
        tokens: Of the clip; the text has a quarter as many.
        outliers: Plant large channels.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = EasyAnimateTransformerBlock(width, width // 64, 64, 512)
    draw = torch.Generator().manual_seed(0)
    if outliers:
        plant(block)

    def gradient(base: Base | None) -> Tensor:
        model = OneBlock(copy.deepcopy(block)).requires_grad_(False)
        dtype = torch.float32 if base is None else base.dtype
        if base is not None:
            change_base(model, base)
        parameters = with_adapter(model, LoraSpec(16, 16, "attention+mlp"))
        draw.manual_seed(3)
        sizes = (
            (tokens, width),
            (tokens // 4, width),
            (512,),
            (tokens, width),
            (tokens // 4, width),
        )
        video, text, time, *g = (torch.randn(1, *size, generator=draw) for size in sizes)
        states = model.transformer_blocks[0](video.to(dtype), text.to(dtype), time.to(dtype))
        sum((x.float() * y).sum() for x, y in zip(states, g, strict=True)).backward()
        return flat(parameters)

    return gradient


def plant(block: nn.Module) -> None:
    """Give a block the large channels that trained transformers have, in place."""
    with torch.no_grad():
        for norm in (block.norm1.norm, block.norm2.norm):
            norm.weight[::OUTLIERS] *= 30.0
        for mlp in (block.ff, block.txt_ff):
            mlp.net[0].proj.weight[::OUTLIERS] *= 10.0


def change_base(model: nn.Module, base: Base) -> None:
    """Put the linear layers of the blocks into the base's form, in place."""
    nn.Module.to(model, base.dtype)  # diffusers' own warns of modules that it does not have
    if base.kind is None:
        return
    blocks = model.transformer_blocks
    for path, layer in [*blocks.named_modules()]:
        if type(layer) is nn.Linear:
            new = QuantisedLinear(layer.weight.detach(), base.kind, codec=base.codec)
            new.bias = layer.bias
            parent, _, child = path.rpartition(".")
            setattr(blocks.get_submodule(parent), child, new)


def with_adapter(model: nn.Module, spec: LoraSpec) -> list[nn.Parameter]:
    """Put an adapter on a model whose effect is small and not 0; the same each time."""
    parameters = attach(model, spec, seed=1)
    draw = torch.Generator().manual_seed(2)
    for name, tensor in adapter_state(model).items():
        if name.endswith("lora_B.weight"):
            tensor.copy_(torch.randn(tensor.shape, generator=draw) * 0.02)
    return parameters


def flat(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the gradients as one vector."""
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).double()


def compared(gradient: Tensor, expected: Tensor) -> tuple[float, float]:
    """Return cosine and relative error."""
    cosine = torch.cosine_similarity(gradient, expected, dim=0).item()
    return cosine, ((gradient - expected).norm() / expected.norm()).item()


def rows(tests: Mapping[str, Gradient], bases: Sequence[Base]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| base | " + " | ".join(f"{name}: cosine | error" for name in tests) + " |"
    yield "|---" * (1 + 2 * len(tests)) + "|"
    expected = {name: gradient(None) for name, gradient in tests.items()}
    for base in bases:
        try:
            if base.kind is not None:
                require(base.kind, "cpu")
        except GeneratorError as error:
            yield f"| {base.name} | not measured: {error} |"
            continue
        cells = []
        for name, gradient in tests.items():
            cosine, error = compared(gradient(base), expected[name])
            cells.append(f"{cosine:.5f} | {error:.3f}")
        yield f"| {base.name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=3072, help="channels of the random block")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of the random block")
    parser.add_argument("--only", nargs="*", help="bases whose names contain one of these words")
    options = parser.parse_args()
    bases = [b for b in BASES if not options.only or any(w in b.name for w in options.only)]
    size = (options.width, options.tokens)
    tests = {
        "embedded": embedded(),
        f"block of {options.width}": random_block(*size, outliers=False),
        "with outliers": random_block(*size, outliers=True),
    }
    print(json.dumps(machine()))
    for row in rows(tests, bases):
        print(row, flush=True)


if __name__ == "__main__":
    main()

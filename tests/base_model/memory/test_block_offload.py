"""Streamed blocks: the resident model's numbers to the bit, one block's memory."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.generator import Condition, Generator, load_generator
from base_model.memory.block_offload import stream_blocks
from tests.boundary import Boundary, bytes_of
from tests.goldens import load_golden

CPU = torch.device("cpu")


def inputs() -> tuple[Tensor, Condition]:
    draw = torch.Generator().manual_seed(3)
    latents = torch.randn(2, 16, 2, 4, 6, generator=draw)
    return latents, Condition(load_golden("sampling_7b_style").tensors["in.text"])


def passes(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Velocity with and without gradient, and the gradient of its square at the latents."""
    latents, condition = inputs()
    with torch.no_grad():
        quiet = generator.velocity(latents, 0.7, condition)
    leaf = latents.clone().requires_grad_()
    loud = generator.velocity(leaf, 0.7, condition)
    loud.square().sum().backward()
    assert leaf.grad is not None
    return quiet, loud.detach(), leaf.grad


def streamed(generator: Generator) -> Boundary:
    boundary = Boundary()
    stream_blocks(generator.transformer, CPU, boundary)
    boundary.close(generator.transformer.transformer_blocks)
    return boundary


def test_the_same_bits_from_poisoned_weights(checkpoint: Path, generator: Generator) -> None:
    reference = load_generator(checkpoint, text_encoder=False)
    reference.transformer.enable_gradient_checkpointing()
    expected = passes(reference)
    assert expected[2].norm() > 0
    boundary = streamed(generator)
    for got, wanted in zip(passes(generator), expected, strict=True):
        assert torch.equal(got, wanted)
    blocks = list(generator.transformer.transformer_blocks)
    tensors = sum(len([*block.parameters(), *block.buffers()]) for block in blocks)
    assert boundary.copies == 3 * tensors  # quiet forward, loud forward, recomputation


def test_one_block_at_a_time(generator: Generator) -> None:
    blocks = list(generator.transformer.transformer_blocks)
    largest, together = max(map(bytes_of, blocks)), sum(map(bytes_of, blocks))
    assert len(blocks) == 4
    boundary = streamed(generator)
    latents, condition = inputs()
    with torch.no_grad():
        generator.velocity(latents, 0.7, condition)
    assert boundary.peak == largest
    assert boundary.bytes == 0
    velocity = generator.velocity(latents.requires_grad_(), 0.7, condition)
    assert boundary.bytes == 0  # the graph holds no weights
    boundary.peak = 0
    velocity.sum().backward()
    assert boundary.peak <= 2 * largest < together
    assert boundary.bytes == 0
    for block in blocks:
        assert all(p.isnan().all() for p in block.parameters())


def test_weights_rest_after_an_error(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    boundary = streamed(generator)
    block = generator.transformer.transformer_blocks[1]

    def fails(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(block.attn1, "processor", fails)
    latents, condition = inputs()
    with torch.no_grad(), pytest.raises(ZeroDivisionError):
        generator.velocity(latents, 0.7, condition)
    assert boundary.bytes == 0


def test_gradients_without_checkpointing_are_refused(generator: Generator) -> None:
    streamed(generator)
    generator.transformer.disable_gradient_checkpointing()
    latents, condition = inputs()
    with torch.no_grad():
        assert generator.velocity(latents, 0.7, condition).isfinite().all()
    with pytest.raises(GeneratorError, match="Streamed blocks need gradient checkpointing"):
        generator.velocity(latents.requires_grad_(), 0.7, condition)


def test_loaded_so(checkpoint: Path) -> None:
    generator = load_generator(checkpoint, text_encoder=False, memory="block-offload")
    assert generator.transformer.gradient_checkpointing
    assert all("forward" in vars(block) for block in generator.transformer.transformer_blocks)
    reference = load_generator(checkpoint, text_encoder=False)
    latents, condition = inputs()
    with torch.no_grad():
        expected = reference.velocity(latents, 0.7, condition)
        assert torch.equal(generator.velocity(latents, 0.7, condition), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(checkpoint: Path) -> None:
    options = {"text_encoder": False, "device": "cuda"}
    reference = load_generator(checkpoint, **options)  # type: ignore[arg-type]
    reference.transformer.enable_gradient_checkpointing()
    generator = load_generator(checkpoint, memory="block-offload", **options)  # type: ignore[arg-type]
    block = generator.transformer.transformer_blocks[0]
    assert {p.device.type for p in block.parameters()} == {"cpu"}
    assert all(p.is_pinned() for p in block.parameters())
    for got, wanted in zip(passes(generator), passes(reference), strict=True):
        assert torch.equal(got, wanted)

"""Streamed blocks: the resident model's numbers to the bit, two blocks' memory, in good time."""

import itertools
from pathlib import Path
from typing import Any

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


def weights_of(generator: Generator, blocks: int) -> int:
    """Number of tensors of the first blocks."""
    first = list(generator.transformer.transformer_blocks)[:blocks]
    return sum(len([*block.parameters(), *block.buffers()]) for block in first)


def test_the_same_bits_from_poisoned_weights(checkpoint: Path, generator: Generator) -> None:
    reference = load_generator(checkpoint, text_encoder=False)
    reference.transformer.enable_gradient_checkpointing()
    expected = passes(reference)
    assert expected[2].norm() > 0
    boundary = streamed(generator)
    for got, wanted in zip(passes(generator), expected, strict=True):
        assert torch.equal(got, wanted)
    blocks = list(generator.transformer.transformer_blocks)
    # quiet forward, loud forward, recomputation
    assert boundary.copies == 3 * weights_of(generator, len(blocks))


def test_two_blocks_at_a_time(generator: Generator) -> None:
    blocks = list(generator.transformer.transformer_blocks)
    sizes = [bytes_of(block) for block in blocks]
    assert len(blocks) == 4
    boundary = streamed(generator)
    latents, condition = inputs()
    with torch.no_grad():
        generator.velocity(latents, 0.7, condition)
    assert boundary.peak == max(a + b for a, b in itertools.pairwise(sizes)) < sum(sizes)
    assert boundary.bytes == 0
    velocity = generator.velocity(latents.requires_grad_(), 0.7, condition)
    assert boundary.bytes == 0  # the graph holds no weights
    boundary.peak = 0
    velocity.sum().backward()
    assert boundary.peak <= 2 * max(sizes) < sum(sizes)
    assert boundary.bytes == 0
    for block in blocks:
        assert all(p.isnan().all() for p in block.parameters())


class Diary:
    """Notes when a block's weights are asked for, waited for and used."""

    def __init__(self, transformer: Any) -> None:
        self.notes: list[str] = []
        self._real, self._of = Boundary(), {}
        blocks = list(transformer.transformer_blocks)
        for index, block in enumerate(blocks):
            block.norm1.register_forward_pre_hook(self._noting(f"run {index}"))
        stream_blocks(transformer, CPU, self._copy, lambda: self.notes.append("wait"))
        self._real.close(blocks)
        for index, block in enumerate(blocks):
            for tensor in (*block.parameters(), *block.buffers()):
                self._of[tensor.data_ptr()] = index

    def _noting(self, note: str) -> Any:
        return lambda *arguments: self.notes.append(note)

    def _copy(self, tensor: Tensor, device: torch.device) -> Tensor:
        note = f"ask {self._of[tensor.data_ptr()]}"
        if self.notes[-1:] != [note]:
            self.notes.append(note)
        return self._real(tensor, device)

    def take(self) -> str:
        notes, self.notes = self.notes, []
        return ", ".join(notes)


UPWARDS = (
    "ask 0, wait, ask 1, run 0, wait, ask 2, run 1, wait, ask 3, run 2, wait, run 3"  # of 4 blocks
)
DOWNWARDS = "ask 3, wait, ask 2, run 3, wait, ask 1, run 2, wait, ask 0, run 1, wait, run 0"


def test_the_next_block_is_asked_for_before_the_one_at_work_runs(generator: Generator) -> None:
    diary = Diary(generator.transformer)
    latents, condition = inputs()
    with torch.no_grad():
        generator.velocity(latents, 0.7, condition)
    assert diary.take() == UPWARDS
    leaf = latents.requires_grad_()
    first, second = (generator.velocity(leaf, sigma, condition) for sigma in (0.7, 0.2))
    assert diary.take() == f"{UPWARDS}, {UPWARDS}"
    (first + second).sum().backward()  # two graphs, one after the other
    assert diary.take() == f"{DOWNWARDS}, {DOWNWARDS}"


def test_the_backward_pass_asks_for_no_block_below_the_last_that_it_needs(
    generator: Generator,
) -> None:
    """A step whose input is no part of the graph, and an adapter in the two upper blocks alone."""
    diary = Diary(generator.transformer)
    for index in (2, 3):
        layer = generator.transformer.transformer_blocks[index].attn1.to_q
        gain = torch.ones(1, requires_grad=True)
        layer.register_forward_hook(lambda module, args, out, gain=gain: out * gain)
    latents, condition = inputs()
    velocity = generator.velocity(latents, 0.7, condition)
    assert diary.take() == UPWARDS
    velocity.sum().backward()
    assert diary.take() == "ask 3, wait, ask 2, run 3, wait, run 2"


def test_weights_rest_after_an_error(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    boundary = streamed(generator)
    block = generator.transformer.transformer_blocks[1]

    def fails(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(block.attn1, "processor", fails)
    latents, condition = inputs()
    with torch.no_grad(), pytest.raises(ZeroDivisionError):
        generator.velocity(latents, 0.7, condition)
    assert boundary.copies == weights_of(generator, 3)  # the third was on its way
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

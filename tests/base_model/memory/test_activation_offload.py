"""Inputs of blocks that travel: how many, and the same bits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.generator import Condition, Generator
from base_model.memory import activation_offload
from base_model.memory.activation_offload import offload_activations
from tests.goldens import load_golden


class Way:
    """There and back, counted; what was left behind may be overwritten."""

    def __init__(self) -> None:
        self.sent, self.fetched, self.bytes = 0, 0, 0

    def away(self, tensor: Tensor) -> Tensor:
        self.sent += 1
        self.bytes += tensor.nbytes
        return tensor.clone()

    def back(self, tensor: Tensor, device: torch.device) -> Tensor:
        assert device == torch.device("cpu")
        self.fetched += 1
        return tensor.clone()


def condition() -> Condition:
    return Condition(load_golden("sampling_7b_style").tensors["in.text"])


def passed(generator: Generator) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    latents = torch.randn(2, 16, 2, 4, 6, generator=draw).requires_grad_()
    velocity = generator.velocity(latents, 0.7, condition())
    velocity.square().sum().backward()
    assert latents.grad is not None
    return velocity.detach(), latents.grad


def test_two_inputs_of_each_block_travel_and_no_bit_changes(generator: Generator) -> None:
    generator.transformer.enable_gradient_checkpointing()
    expected, way = passed(generator), Way()
    offload_activations(generator.transformer, way.away, way.back)
    with torch.no_grad():
        passed_quietly = generator.velocity(torch.zeros(2, 16, 2, 4, 6), 0.7, condition())
    assert passed_quietly.isfinite().all()
    assert way.sent == 0  # no graph, nothing to keep
    for got, wanted in zip(passed(generator), expected, strict=True):
        assert torch.equal(got, wanted)
    blocks = len(generator.transformer.transformer_blocks)
    # The first block's text carries no gradient, but the checkpoint keeps it, too.
    assert way.sent == way.fetched == 2 * blocks
    text = condition().text.shape[1]
    config = generator.transformer.config
    width = config.num_attention_heads * config.attention_head_dim
    assert way.bytes == blocks * 2 * (2 * 2 * 3 + text) * width * 4  # 12 tokens of the clip


def test_the_way_to_the_cpu_is_exact() -> None:
    x = torch.randn(3, 4).t()
    there = activation_offload.away(x)
    assert torch.equal(there, x)
    assert there.data_ptr() != x.data_ptr()
    assert torch.equal(activation_offload.back(there, torch.device("cpu")), x)


def test_without_checkpoints_it_is_refused(generator: Generator) -> None:
    with pytest.raises(GeneratorError, match="needs gradient checkpointing"):
        offload_activations(generator.transformer)

"""Packed and resting weights, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from base_model.memory.quantise import QuantisedLinear
from benchmarks.small_shape import SMALL
from reward_tuning.estimate.random_parts import random_generator
from reward_tuning.estimate.stored import Block, adjusted, blocks_of
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.sections import GeneratorSection

PARTS = {"transformer": 1e9, "decoder": 2e8, "judges": 3e8, "activations": 4e8}


def section(**values: str) -> GeneratorSection:
    recipe = load_recipe("easyanimate-v5.1-12b-hps", check_files=False)
    return recipe.generator.model_copy(update=values)


def test_blocks_by_the_whole_model() -> None:
    recipe = load_recipe("easyanimate-v5.1-7b-hps", check_files=False)
    transformer = random_generator(recipe.generator, SMALL, torch.device("meta")).transformer
    blocks = blocks_of(SMALL)
    assert len(blocks) == len(transformer.transformer_blocks)
    for block, real in zip(blocks, transformer.transformer_blocks, strict=True):
        linear = [one for one in real.modules() if isinstance(one, nn.Linear)]
        assert block.linear == sum(one.weight.numel() for one in linear)
        assert block.linear + block.others == sum(one.numel() for one in real.parameters())
        assert block.largest == max(one.weight.numel() for one in linear)


def test_fp8_as_the_layer_stores_it() -> None:
    layer = QuantisedLinear(torch.randn(24, 40), "fp8")
    stored = sum(one.nbytes for one in layer.packed)
    assert Block(24 * 40, 24, 24 * 40, 40, 0).bytes(4, "fp8") == stored


def test_nf4_takes_four_and_a_half_bits() -> None:
    assert Block(6400, 64, 6400, 100, 10).bytes(2, "nf4") == 6400 * 4.5 / 8 + 20


def test_nothing_changes_on_the_device_alone() -> None:
    assert adjusted(section(), SMALL, "rollout", PARTS, gpus=1, rows=100) == PARTS
    assert adjusted(section(memory="offload"), SMALL, "rollout", PARTS, gpus=0, rows=100) == PARTS


def test_decoder_and_judges_rest_outside_their_phase() -> None:
    generator = section(memory="offload")
    resting = adjusted(generator, SMALL, "rollout", PARTS, gpus=1, rows=100)
    assert resting == PARTS | {"decoder": 0.0, "judges": 0.0}
    assert adjusted(generator, SMALL, "reward", PARTS, gpus=1, rows=100) == PARTS


def test_two_blocks_are_on_the_device_while_the_transformer_runs() -> None:
    generator = section(memory="block-offload")
    size = 2  # bfloat16
    blocks = sorted(block.bytes(size, None) for block in blocks_of(SMALL))
    running = adjusted(generator, SMALL, "sweep", PARTS, gpus=1, rows=100)
    assert running["transformer"] == pytest.approx(1e9 - sum(blocks[:-2]))
    judging = adjusted(generator, SMALL, "reward", PARTS, gpus=1, rows=100)
    assert judging["transformer"] == pytest.approx(1e9 - sum(blocks))


def test_shared_blocks_are_spread_and_gathered_two_at_a_time() -> None:
    generator = section(memory="sharded")
    blocks = sorted(block.bytes(2, None) for block in blocks_of(SMALL))
    found = adjusted(generator, SMALL, "rollout", PARTS, gpus=4, rows=100)
    assert found["transformer"] == pytest.approx(1e9 - 0.75 * sum(blocks) + sum(blocks[-2:]))
    assert adjusted(generator, SMALL, "evaluation", PARTS, gpus=4, rows=100) == PARTS
    assert adjusted(generator, SMALL, "rollout", PARTS, gpus=1, rows=100) == PARTS


def test_products_in_8_bits_round_their_input() -> None:
    found = adjusted(section(quantise="int8-compute"), SMALL, "sweep", PARTS, gpus=1, rows=100)
    widest = max(block.widest for block in blocks_of(SMALL))
    assert widest == 4 * 64
    assert found["activations"] == 4e8 + 100 * widest * 9
    stored = adjusted(section(quantise="int8"), SMALL, "sweep", PARTS, gpus=1, rows=100)
    assert found["transformer"] == stored["transformer"]


def test_a_packed_weight_is_unpacked_one_at_a_time() -> None:
    blocks = blocks_of(SMALL)
    found = adjusted(section(quantise="fp8"), SMALL, "rollout", PARTS, gpus=1, rows=100)
    saved = sum(block.bytes(2, None) - block.bytes(2, "fp8") for block in blocks)
    assert found["transformer"] == pytest.approx(1e9 - saved)
    largest = max(block.largest for block in blocks)
    assert found["activations"] == 4e8 + largest * (2 + 4)
    assert not math.isclose(found["transformer"], 1e9)

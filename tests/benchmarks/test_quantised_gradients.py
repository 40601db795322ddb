"""The comparison itself: what it compares with, what it plants, and the table."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from base_model.memory.eight_bit_compute import EightBitCompute
from base_model.memory.quantise import QuantisedLinear
from benchmarks.quantised_gradients import (
    BASES,
    Base,
    OneBlock,
    change_base,
    compared,
    embedded,
    random_block,
    rows,
)

FULL = Base("float32")


def test_the_same_base_has_the_same_gradient() -> None:
    for gradient in (embedded(), random_block(64, 24, outliers=True)):
        expected = gradient(None)
        assert expected.norm() > 0
        assert torch.equal(gradient(FULL), expected)


def test_outliers_are_what_a_rotation_helps_against() -> None:
    gradient = random_block(256, 64, outliers=True)
    expected = gradient(None)
    errors = []
    for group in (1, 128):
        base = Base("", "int8-compute", EightBitCompute(torch.int8, group))
        cosine, error = compared(gradient(base), expected)
        assert cosine == pytest.approx(1 - error**2 / 2, abs=2e-4)  # small and unbiased
        errors.append(error)
    assert errors[1] < 0.8 * errors[0]


def test_every_linear_layer_of_a_block_is_changed_and_no_other() -> None:
    inside = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32), nn.Linear(32, 16))
    model = OneBlock(inside)
    bias = inside[0].bias
    change_base(model, Base("", "fp8"))
    assert [type(layer) for layer in inside] == [QuantisedLinear, nn.LayerNorm, QuantisedLinear]
    assert inside[0].bias is bias
    change_base(model, Base("", dtype=torch.bfloat16))
    assert inside[1].weight.dtype == torch.bfloat16


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({base.name for base in BASES}) == len(BASES)
    tests = {"one": random_block(64, 24, outliers=False)}
    chosen = [base for base in BASES if base.name == "bfloat16" or "int8-compute" in base.name]
    head, _, first, *others = rows(tests, chosen)
    assert head == "| base | one: cosine | error |"
    assert first.startswith("| bfloat16 | 0.999")
    assert len(others) == 5
    for row in others:
        assert float(row.split("|")[2]) > 0.99

    def missing(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(torch, "_int_mm", missing)
    told = list(rows(tests, chosen))
    assert told[2] == first
    assert all("not measured: quantise=int8-compute" in row for row in told[3:])

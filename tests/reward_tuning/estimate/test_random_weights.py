"""Random weights keep the size of their inputs."""

from __future__ import annotations

import torch
from torch import nn

from reward_tuning.estimate.random_weights import STD, RandomWeights, fill


def empty(make: type[nn.Module], *sizes: int) -> nn.Module:
    with torch.device("meta"):
        return make(*sizes)


def test_values_by_name_and_shape() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv3d(16, 64, 3), nn.LayerNorm(8), nn.Linear(64, 64))
    fill(model, RandomWeights(torch.device("cpu"), "a"))
    conv, norm, linear = model
    assert torch.equal(norm.weight, torch.ones(8))
    assert torch.equal(norm.bias, torch.zeros(8))
    x = torch.randn(2, 16, 5, 9, 9, generator=torch.Generator().manual_seed(0))
    out = conv(x.relu())
    assert 0.7 < float(out.detach().std()) / float(x.std()) < 1.4
    assert 0.9 < float(linear.weight.detach().std()) / STD < 1.1


def test_a_seed_repeats_and_the_dtype_is_chosen() -> None:
    one, two = empty(nn.Linear, 4, 4), empty(nn.Linear, 4, 4)
    for module in (one, two):
        fill(module, RandomWeights(torch.device("cpu"), "a"), torch.bfloat16)
    assert torch.equal(one.weight, two.weight)
    assert one.weight.dtype == torch.bfloat16


def test_on_the_meta_device_there_are_shapes_alone() -> None:
    module = empty(nn.Linear, 4, 4)
    fill(module, RandomWeights(torch.device("meta"), "a"))
    assert module.weight.is_meta

"""The hash of an adapter: equal for equal content, whatever the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reward_tuning.lora.adapter import LoraSpec, LoraWeights, attach, lora_weights
from reward_tuning.lora.export import export_adapter, import_adapter
from reward_tuning.lora.identity import adapter_sha256
from tests.reward_tuning.tiny_transformer import tiny_transformer


@pytest.fixture(scope="module")
def weights() -> LoraWeights:
    transformer = tiny_transformer()
    parameters = attach(transformer, LoraSpec(2, 4.0), seed=0)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return lora_weights(transformer)


def test_the_same_from_memory_and_from_every_bitwise_file(
    weights: LoraWeights, tmp_path: Path
) -> None:
    expected = adapter_sha256(weights)
    for format_, name in (
        ("peft", "a"),
        ("diffusers", "a.safetensors"),
        ("original", "b.safetensors"),
    ):
        path = export_adapter(weights, tmp_path / name, format_)
        assert adapter_sha256(import_adapter(path, tiny_transformer())) == expected
    backwards = replace(weights, state=dict(reversed(weights.state.items())))
    assert adapter_sha256(backwards) == expected


def test_any_change_gives_another_hash(weights: LoraWeights) -> None:
    path, (down, up) = next(iter(weights.state.items()))
    one_bit = up.clone()
    one_bit[0, 0] = torch.nextafter(one_bit[0, 0], torch.tensor(9.0))
    others = [
        replace(weights, alpha=3.5),
        replace(weights, state={**weights.state, path: (down, one_bit)}),
        replace(weights, state={**weights.state, path: (up.T.contiguous(), down.T.contiguous())}),
        replace(weights, state={k: v for k, v in weights.state.items() if k != path}),
        replace(weights, state={f"{k}x" if k == path else k: v for k, v in weights.state.items()}),
    ]
    hashes = {adapter_sha256(one) for one in [weights, *others]}
    assert len(hashes) == 6
    assert all(len(one) == 64 for one in hashes)

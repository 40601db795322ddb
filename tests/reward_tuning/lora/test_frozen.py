"""A LoRA under the trained one: merged or beside, it changes the velocity alike, and goes off."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import EasyAnimateTransformer3DModel
from torch import Tensor

from base_model.files.shipped import WEIGHTS
from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import (
    LoraSpec,
    LoraWeights,
    adapter_state,
    attach,
    attach_weights,
    lora_weights,
    scaled,
)
from reward_tuning.lora.combining import combine
from reward_tuning.lora.export import export_adapter
from reward_tuning.lora.frozen import FrozenAdapter, can_merge, check_frozen, frozen_sha256
from reward_tuning.schema.sections import GeneratorSection
from tests.reward_tuning.tiny_transformer import inputs, tiny_transformer, velocity

BOTH = pytest.mark.parametrize("merged", [True, False], ids=["merged", "beside"])


def drawn(rank: int, targets: str, seed: int) -> LoraWeights:
    transformer = tiny_transformer()
    parameters = attach(transformer, LoraSpec(rank, 2.0 * rank, targets), seed=0)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw))
    return lora_weights(transformer)


LOW, TOP = drawn(3, "attention+mlp", 1), drawn(2, "attention", 2)


def shown(transformer: EasyAnimateTransformer3DModel) -> Tensor:
    with torch.no_grad():
        return velocity(transformer, *inputs())


@BOTH
def test_the_velocity_is_that_of_the_attached_lora(merged: bool) -> None:
    reference, transformer = tiny_transformer(), tiny_transformer()
    base = shown(reference)
    attach_weights(reference, LOW)
    frozen = FrozenAdapter(transformer, LOW, merged=merged)
    torch.testing.assert_close(shown(transformer), shown(reference), rtol=1e-4, atol=1e-5)
    assert float((shown(transformer) - base).abs().max()) > 0.1
    with frozen.off():
        assert torch.equal(shown(transformer), base)  # to the bit
        with frozen.off():
            pass
        assert torch.equal(shown(transformer), base)
    torch.testing.assert_close(shown(transformer), shown(reference), rtol=1e-4, atol=1e-5)


@BOTH
def test_a_lora_on_top_is_added_and_alone_is_trained_and_exported(merged: bool) -> None:
    reference, transformer = tiny_transformer(), tiny_transformer()
    attach_weights(reference, combine([(LOW, 1.0), (TOP, 1.0)]))
    frozen = FrozenAdapter(transformer, LOW, merged=merged)
    parameters = attach_weights(transformer, TOP)
    torch.testing.assert_close(shown(transformer), shown(reference), rtol=1e-4, atol=1e-5)
    velocity(transformer, *inputs()).square().mean().backward()
    trained = {name for name, p in transformer.named_parameters() if p.grad is not None}
    assert len(trained) == len(parameters) == len(adapter_state(transformer))
    kept = lora_weights(transformer)
    assert kept.state.keys() == TOP.state.keys()  # attention alone: nothing of the frozen one
    assert all(torch.equal(kept.state[path][1], TOP.state[path][1]) for path in kept.state)
    plain = tiny_transformer()
    base = shown(plain)
    attach_weights(plain, TOP)
    with frozen.off():
        assert torch.equal(shown(transformer), shown(plain))
        with scaled(transformer, 0.0):
            assert torch.equal(shown(transformer), base)


def test_half_precision_weights_stay_as_they_are() -> None:
    transformer = tiny_transformer().to(torch.bfloat16)
    before = {name: p.clone() for name, p in transformer.named_parameters()}
    base = shown(transformer)
    frozen = FrozenAdapter(transformer, LOW, merged=False)
    assert not torch.equal(shown(transformer), base)
    assert all(torch.equal(p, before[name]) for name, p in transformer.named_parameters())
    with frozen.off():
        assert torch.equal(shown(transformer), base)


def test_only_plain_float32_weights_take_it_in() -> None:
    assert can_merge(GeneratorSection(checkpoint="tiny", memory="offload"))
    for changes in ({"dtype": "bfloat16"}, {"quantise": "int8"}, {"memory": "block-offload"}):
        assert not can_merge(GeneratorSection(checkpoint="tiny", **changes))


def test_a_file_of_another_model_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    file = export_adapter(LOW, tmp_path / "a.safetensors", "diffusers")
    section = GeneratorSection(checkpoint="tiny", adapter=str(file))
    check_frozen(section, None)
    assert len(frozen_sha256(section)) == 64
    assert frozen_sha256(GeneratorSection(checkpoint="tiny")) == ""
    with pytest.raises(TuningError, match="for a model of another size"):
        check_frozen(section, WEIGHTS / "tiny")

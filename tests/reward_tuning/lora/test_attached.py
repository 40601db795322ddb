"""An adapter on a transformer for the length of a context."""

import pytest
import torch
from diffusers import EasyAnimateTransformer3DModel

from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import (
    LoraSpec,
    LoraWeights,
    adapted_layers,
    attach,
    linear_modules,
)
from reward_tuning.lora.attached import attached, detach
from tests.reward_tuning.tiny_transformer import inputs, tiny_transformer, velocity


def weights_of(transformer: EasyAnimateTransformer3DModel) -> LoraWeights:
    draw = torch.Generator().manual_seed(5)
    state = {
        path: (
            0.3 * torch.randn(2, layer.in_features, generator=draw),
            0.3 * torch.randn(layer.out_features, 2, generator=draw),
        )
        for path, layer in linear_modules(transformer).items()
    }
    return LoraWeights(2, 2.0, state)


def test_adapter_works_inside_and_leaves_nothing_behind() -> None:
    transformer = tiny_transformer()
    names = list(transformer.state_dict())
    flags = [p.requires_grad for p in transformer.parameters()]
    before = velocity(transformer, *inputs())
    with attached(transformer, weights_of(transformer)):
        inside = velocity(transformer, *inputs())
        assert adapted_layers(transformer)
    assert not torch.equal(inside, before)
    assert torch.equal(velocity(transformer, *inputs()), before)
    assert list(transformer.state_dict()) == names
    assert [p.requires_grad for p in transformer.parameters()] == flags
    assert not hasattr(transformer, "peft_config")


def test_strength_scales_the_effect_and_zero_is_the_base() -> None:
    transformer = tiny_transformer()
    before = velocity(transformer, *inputs())
    with attached(transformer, weights_of(transformer), 0.0):
        assert torch.equal(velocity(transformer, *inputs()), before)
    merged = tiny_transformer()
    with torch.no_grad():
        for path, (down, up) in weights_of(transformer).state.items():
            merged.get_submodule(path).weight += 0.5 * up @ down
    with attached(transformer, weights_of(transformer), 0.5):
        half = velocity(transformer, *inputs())
    assert torch.allclose(half, velocity(merged, *inputs()), rtol=1e-4, atol=1e-5)


def test_an_error_inside_also_takes_it_off_and_another_fits_after() -> None:
    transformer = tiny_transformer()
    with pytest.raises(KeyError), attached(transformer, weights_of(transformer)):
        raise KeyError
    assert not adapted_layers(transformer)
    attach(transformer, LoraSpec(4, 4.0), seed=0)
    assert adapted_layers(transformer)


def test_a_second_adapter_is_refused() -> None:
    transformer = tiny_transformer()
    attach(transformer, LoraSpec(4, 4.0), seed=0)
    with (
        pytest.raises(TuningError, match="has an adapter already"),
        attached(transformer, weights_of(transformer)),
    ):
        pass
    assert adapted_layers(transformer)


def test_detach_without_an_adapter_changes_nothing() -> None:
    transformer = tiny_transformer()
    names = list(transformer.state_dict())
    detach(transformer)
    assert list(transformer.state_dict()) == names


def test_a_schedule_is_followed_inside_and_gone_afterwards() -> None:
    transformer = tiny_transformer()
    before = velocity(transformer, *inputs(), sigma=0.8)
    weights = weights_of(transformer)
    with attached(transformer, weights, 0.5):
        expected = velocity(transformer, *inputs(), sigma=0.3)
    with attached(transformer, weights, 0.5, lambda sigma: float(sigma < 0.5)):
        assert torch.equal(velocity(transformer, *inputs(), sigma=0.8), before)
        assert torch.equal(velocity(transformer, *inputs(), sigma=0.3), expected)
    assert torch.equal(velocity(transformer, *inputs(), sigma=0.8), before)
    assert not transformer._forward_pre_hooks

"""Several LoRAs as one, against peft and the formula; LoRAs without an effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from reward_tuning.lora.adapter import (
    LoraSpec,
    LoraWeights,
    adapter_state,
    attach,
    attach_weights,
    linear_modules,
    lora_weights,
)
from reward_tuning.lora.combining import combine, has_no_effect, no_effect_warning
from reward_tuning.lora.export import export_adapter
from tests.reward_tuning.tiny_transformer import inputs, tiny_transformer, velocity


def drawn(rank: int, alpha: float, targets: str, seed: int) -> LoraWeights:
    """An adapter of random factors."""
    transformer = tiny_transformer()
    attach(transformer, LoraSpec(rank, alpha, targets), seed=0)
    draw = torch.Generator().manual_seed(seed)
    for tensor in adapter_state(transformer).values():
        tensor.copy_(torch.randn(tensor.shape, generator=draw) * 0.3)
    return lora_weights(transformer)


TWO = (drawn(4, 2.0, "attention", 1), drawn(3, 6.0, "all-linear", 2))


def test_two_adapters_are_what_peft_makes_of_both(tmp_path: Path) -> None:
    for name, weights in zip("ab", TWO, strict=True):
        export_adapter(weights, tmp_path / name, "peft")
    model: Any = PeftModel.from_pretrained(tiny_transformer(), str(tmp_path / "a"), "a")
    model.load_adapter(str(tmp_path / "b"), "b")
    model.base_model.set_adapter(["a", "b"])
    wanted = velocity(model.base_model.model, *inputs())
    ours = tiny_transformer()
    attach_weights(ours, combine([(weights, 1.0) for weights in TWO]))
    assert torch.allclose(velocity(ours, *inputs()), wanted, rtol=1e-4, atol=1e-5)


def test_each_of_several_adapters_counts_at_its_scale() -> None:
    scales = (0.5, -1.5)
    both = combine(list(zip(TWO, scales, strict=True)))
    assert both.rank == 7
    for path in linear_modules(tiny_transformer()):
        wanted: Any = 0.0
        for weights, scale in zip(TWO, scales, strict=True):
            if path in weights.state:
                down, up = (one.double() for one in weights.state[path])
                wanted = wanted + scale * weights.alpha / weights.rank * (up @ down)
        down, up = (one.double() for one in both.state[path])
        got = both.alpha / both.rank * (up @ down)
        assert torch.allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_an_untrained_adapter_has_no_effect() -> None:
    transformer = tiny_transformer()
    attach(transformer, LoraSpec(4, 2.0, "attention"), seed=0)
    untrained = lora_weights(transformer)
    assert has_no_effect(untrained)
    assert "the LoRA a.safetensors changes nothing" in no_effect_warning("a.safetensors")
    last = list(untrained.state)[-1]
    down, up = untrained.state[last]
    changed = {**untrained.state, last: (down, up + 1e-6)}
    assert not has_no_effect(LoraWeights(4, 2.0, changed))
    assert has_no_effect(LoraWeights(4, 2.0, {last: (torch.zeros_like(down), up + 1.0)}))

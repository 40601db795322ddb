"""Adapters: which modules, which dtype, which start, and the base behind them."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import EasyAnimateTransformer3DModel
from torch import Tensor, nn

from base_model.loading.key_map import to_original
from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import (
    LoraSpec,
    adapter_state,
    attach,
    linear_modules,
    load_adapter_state,
    lora_weights,
    scaled,
    select_targets,
)
from tests.reward_tuning.tiny_transformer import inputs, tiny_transformer, velocity


def filled(transformer: nn.Module, std: float = 0.3) -> None:
    """Give every adapter matrix a value, so that the adapter does something."""
    draw = torch.Generator().manual_seed(5)
    for tensor in adapter_state(transformer).values():
        tensor.copy_(torch.randn(tensor.shape, generator=draw) * std)


# What the original trainer adapts: 14 modules of an MMDiT block, 8 of a single-stream, 5 global.
MMDIT = [
    "norm1.linear",
    "attn1.to_q",
    "attn1.to_k",
    "attn1.to_v",
    "attn1.to_out.0",
    "attn1.add_q_proj",
    "attn1.add_k_proj",
    "attn1.add_v_proj",
    "attn1.to_add_out",
    "norm2.linear",
    "ff.net.0.proj",
    "ff.net.2",
    "txt_ff.net.0.proj",
    "txt_ff.net.2",
]
SINGLE = [
    "norm1.linear",
    "attn1.to_q",
    "attn1.to_k",
    "attn1.to_v",
    "attn1.to_out.0",
    "norm2.linear",
    "ff.net.0.proj",
    "ff.net.2",
]
GLOBAL = [
    "time_embedding.linear_1",
    "time_embedding.linear_2",
    "text_proj.1",
    "norm_out.linear",
    "proj_out",
]


def in_blocks(mmdit: list[str], single: list[str]) -> set[str]:
    names = {0: mmdit, 1: mmdit, 2: single, 3: single}
    return {f"transformer_blocks.{n}.{name}" for n, block in names.items() for name in block}


def test_presets_name_exactly_their_modules() -> None:
    transformer = tiny_transformer()
    everything = in_blocks(MMDIT, SINGLE) | set(GLOBAL)
    assert set(linear_modules(transformer)) == everything
    assert set(select_targets(transformer, "all-linear")) == everything
    attention = in_blocks(
        [n for n in MMDIT if n.startswith("attn1")], [n for n in SINGLE if n.startswith("attn1")]
    )
    assert set(select_targets(transformer, "attention")) == attention
    mlp = in_blocks([n for n in MMDIT if "ff." in n], [n for n in SINGLE if "ff." in n])
    assert set(select_targets(transformer, "attention+mlp")) == attention | mlp


@pytest.mark.parametrize(
    ("layers", "mmdit", "modules", "parameters"),
    [(48, 48, 677, 914_956_288), (36, 18, 401, 559_489_024)],
)
def test_all_linear_is_the_original_trainers_set_at_full_size(
    layers: int, mmdit: int, modules: int, parameters: int
) -> None:
    """Module and rank-128 parameter counts of the published 12B and 7B LoRAs."""
    with torch.device("meta"):
        transformer = EasyAnimateTransformer3DModel(
            num_attention_heads=48,
            attention_head_dim=64,
            in_channels=33,
            out_channels=16,
            patch_size=2,
            num_layers=layers,
            mmdit_layers=mmdit,
            time_embed_dim=512,
            text_embed_dim=3584,
            add_norm_text_encoder=True,
        )
    linear = linear_modules(transformer)
    chosen = select_targets(transformer, "all-linear")
    assert len(chosen) == modules
    count = sum(128 * (linear[p].in_features + linear[p].out_features) for p in chosen)
    assert count == parameters


def test_names_select_by_full_path_or_by_ending() -> None:
    transformer = tiny_transformer()
    chosen = select_targets(transformer, ("transformer_blocks.3.ff.net.2", "add_q_proj"))
    assert chosen == (
        "transformer_blocks.0.attn1.add_q_proj",
        "transformer_blocks.1.attn1.add_q_proj",
        "transformer_blocks.3.ff.net.2",
    )
    # `net.2` ends both ff and txt_ff; `to_out` is not a linear layer, `to_out.0` is
    assert len(select_targets(transformer, ("net.2",))) == 6
    with pytest.raises(TuningError, match=r"'to_out' is not a linear layer.*attn1\.to_out\.0"):
        select_targets(transformer, ("to_q", "to_out"))
    with pytest.raises(TuningError, match=r"'atention'.*attention, attention\+mlp, all-linear"):
        select_targets(transformer, "atention")
    with pytest.raises(TuningError, match="empty"):
        select_targets(transformer, ())


def test_original_names_of_a_block() -> None:
    assert to_original("transformer_blocks.7.attn1.to_add_out") == (
        "transformer_blocks.7.attn2.to_out.0"
    )
    assert to_original("transformer_blocks.7.attn1.to_out.0") == (
        "transformer_blocks.7.attn1.to_out.0"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_adapter_is_fp32_on_a_frozen_base_of_any_dtype(dtype: torch.dtype) -> None:
    transformer = tiny_transformer().to(dtype)
    parameters = attach(transformer, LoraSpec(4, 2.0, "all-linear"), seed=0)
    assert len(parameters) == 2 * (2 * len(MMDIT) + 2 * len(SINGLE) + len(GLOBAL))
    assert all(p.dtype == torch.float32 and p.requires_grad for p in parameters)
    trained = {id(p) for p in parameters}
    for name, p in transformer.named_parameters():
        if id(p) not in trained:
            assert not p.requires_grad, name
            assert p.dtype == dtype, name
    filled(transformer, 0.1)
    out = velocity(transformer, *inputs())
    assert out.dtype == dtype
    out.float().square().sum().backward()
    for p in parameters:
        assert p.grad is not None
        assert p.grad.dtype == torch.float32
        assert bool(p.grad.isfinite().all())
    assert all(float(p.grad.norm()) > 0 for p in parameters if p.grad is not None)


def test_bf16_base_with_fp32_adapter_computes_the_lora_sum() -> None:
    """One layer against its formula: W x + (alpha / r) B A x, the sum in fp32, rounded once."""
    transformer = tiny_transformer().to(torch.bfloat16)
    attach(transformer, LoraSpec(4, 2.0, ("proj_out",)), seed=0)
    filled(transformer)
    layer = transformer.proj_out
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(1)).bfloat16()
    state = adapter_state(transformer)
    down, up = state["proj_out.lora_A.weight"], state["proj_out.lora_B.weight"]
    base = nn.functional.linear(x, layer.base_layer.weight, layer.base_layer.bias)
    expected = (base.float() + 0.5 * (x.float() @ down.T @ up.T)).bfloat16()
    assert torch.equal(layer(x), expected)
    assert not torch.equal(layer(x), base)


def test_start_is_the_base_seeded_and_apart_from_the_global_stream() -> None:
    states = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        transformer = tiny_transformer()
        base = velocity(transformer, *inputs())
        attach(transformer, LoraSpec(4, 4.0), seed=17)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(velocity(transformer, *inputs()), base)
        states.append({k: t.clone() for k, t in adapter_state(transformer).items()})
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    other = tiny_transformer()
    attach(other, LoraSpec(4, 4.0), seed=18)
    name = "transformer_blocks.0.attn1.to_q.lora_A.weight"
    assert not torch.equal(adapter_state(other)[name], states[0][name])
    down = torch.cat([t.flatten() for k, t in states[0].items() if ".lora_A." in k])
    bound = 1 / math.sqrt(32)  # attention layers of width 32
    assert float(down.abs().max()) <= bound
    assert float(down.std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert all(not bool(t.any()) for k, t in states[0].items() if ".lora_B." in k)


def test_state_round_trip_is_strict() -> None:
    source, target = tiny_transformer(), tiny_transformer()
    attach(source, LoraSpec(4, 2.0), seed=0)
    attach(target, LoraSpec(4, 2.0), seed=1)
    filled(source)
    state = adapter_state(source)
    assert {"transformer_blocks.3.attn1.to_q.lora_A.weight"} <= state.keys()
    assert not torch.equal(velocity(target, *inputs()), velocity(source, *inputs()))
    load_adapter_state(target, state)
    assert torch.equal(velocity(target, *inputs()), velocity(source, *inputs()))

    name = "transformer_blocks.0.attn1.to_q.lora_A.weight"
    untouched = {k: t.clone() for k, t in adapter_state(target).items()}
    wrong: list[tuple[dict[str, Tensor], str]] = [
        ({k: t for k, t in state.items() if k != name}, f"1 tensors missing.*{name}"),
        ({**state, "extra": torch.zeros(1)}, "1 unexpected.*extra"),
        ({**{k: t + 1 for k, t in state.items()}, name: torch.zeros(5, 32)}, r"\(5, 32\).*\(4, 32"),
    ]
    for bad, said in wrong:
        with pytest.raises(TuningError, match=said):
            load_adapter_state(target, bad)
    assert all(torch.equal(adapter_state(target)[k], untouched[k]) for k in untouched)


def test_scaled_is_linear_exact_at_zero_and_restores() -> None:
    transformer = tiny_transformer().to(torch.bfloat16)
    base = velocity(transformer, *inputs())
    parameters = attach(transformer, LoraSpec(4, 2.0), seed=0)
    filled(transformer)
    tuned = velocity(transformer, *inputs())
    assert not torch.equal(tuned, base)
    with scaled(transformer, 0.0):
        assert torch.equal(velocity(transformer, *inputs()), base)
        with scaled(transformer, 0.5):
            assert torch.equal(velocity(transformer, *inputs()), base)  # 0 times one half
    assert torch.equal(velocity(transformer, *inputs()), tuned)
    assert all(p.requires_grad for p in parameters)
    with scaled(transformer, 0.5):
        half = velocity(transformer, *inputs())
        with scaled(transformer, 2.0):
            assert torch.equal(velocity(transformer, *inputs()), tuned)
    # Half the strength is half of up: the same numbers by another way.
    for name, tensor in adapter_state(transformer).items():
        if ".lora_B." in name:
            tensor.mul_(0.5)
    assert torch.equal(velocity(transformer, *inputs()), half)
    with pytest.raises(RuntimeError), scaled(transformer, 0.0):
        raise RuntimeError
    assert torch.equal(velocity(transformer, *inputs()), half)
    with pytest.raises(TuningError, match="nan"), scaled(transformer, float("nan")):
        pass


@pytest.mark.parametrize("trained", [True, False])
def test_scaled_does_not_change_what_is_trained(trained: bool) -> None:
    """peft's own switch sets requires_grad of the adapter off, and on again."""
    transformer = tiny_transformer()
    parameters = attach(transformer, LoraSpec(4, 2.0), seed=0)
    for parameter in parameters:
        parameter.requires_grad_(trained)
    with scaled(transformer, 0.0):
        pass
    assert all(parameter.requires_grad == trained for parameter in parameters)


def test_scaled_zero_inside_a_graph_leaves_its_backward_whole() -> None:
    """The velocity anchor runs the base between forward and backward of the same step."""
    grads = []
    for between in (False, True):
        transformer = tiny_transformer()
        parameters = attach(transformer, LoraSpec(4, 2.0), seed=0)
        filled(transformer)
        out = velocity(transformer, *inputs())
        if between:
            with torch.no_grad(), scaled(transformer, 0.0):
                velocity(transformer, *inputs())
        out.square().mean().backward()
        grads.append([p.grad for p in parameters])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_lora_weights_are_a_copy() -> None:
    transformer = tiny_transformer()
    attach(transformer, LoraSpec(4, 2.0), seed=0)
    filled(transformer)
    weights = lora_weights(transformer)
    assert (weights.rank, weights.alpha) == (4, 2.0)
    down, up = weights.state["transformer_blocks.0.attn1.to_q"]
    assert down.shape == (4, 32)
    assert up.shape == (32, 4)
    kept = down.clone()
    for tensor in adapter_state(transformer).values():
        tensor.zero_()
    assert torch.equal(down, kept)


def test_refusals() -> None:
    transformer = tiny_transformer()
    with pytest.raises(TuningError, match="no adapter"):
        lora_weights(transformer)
    attach(transformer, LoraSpec(4, 2.0), seed=0)
    with pytest.raises(TuningError, match="already"):
        attach(transformer, LoraSpec(4, 2.0), seed=0)
    with pytest.raises(TuningError, match=r"lora\.rank is 0"):
        LoraSpec(0, 1.0)
    for alpha in (0.0, -1.0, float("nan")):
        with pytest.raises(TuningError, match=r"lora\.alpha"):
            LoraSpec(4, alpha)

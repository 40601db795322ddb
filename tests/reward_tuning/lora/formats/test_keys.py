"""Keys of LoRA files as tools write them: each has its effect, or is refused as what it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from base_model.loading.key_map import to_original
from reward_tuning.errors import TuningError
from tests.reward_tuning.lora_layouts import (
    ADAPTER,
    FIRST,
    RANK,
    Make,
    assert_same,
    by_formula,
    change,
    dotted,
    flat,
    per_block,
    same_name,
    save,
)


def processor(key: str) -> str:
    """As diffusers once named what it attached to an attention: to_out_lora, for to_out.0."""
    words = {"A": "down", "B": "up"}
    return re.sub(
        r"\.(to_\w+|add_\w_proj)(?:\.0)?\.lora_([AB])",
        lambda found: f".processor.{found[1]}_lora.{words[found[2]]}",
        key,
    )


DEFAULT = ("lora_A.default.weight", "lora_B.default.weight")


LAYOUTS: dict[str, tuple[Make, float]] = {
    "diffusers": (lambda: dotted("transformer."), 1.0),
    "no prefix": (lambda: dotted(""), 1.0),
    "ComfyUI": (lambda: dotted("diffusion_model."), 1.0),
    "two words": (lambda: dotted("model.diffusion_model."), 1.0),
    "peft": (lambda: dotted("base_model.model."), 1.0),
    "DDP": (lambda: dotted("module."), 1.0),
    "FSDP": (lambda: dotted("base_model.model._fsdp_wrapped_module."), 1.0),
    "DeepSpeed": (lambda: dotted("_forward_module.transformer."), 1.0),
    "compiled": (lambda: dotted("transformer._orig_mod."), 1.0),
    "compiled by block": (lambda: dotted("transformer.", rename=per_block), 1.0),
    "DiffSynth": (lambda: dotted("pipe.dit.", *DEFAULT), 1.0),
    "a word of its own": (lambda: dotted("student."), 1.0),
    "adapter's name": (lambda: dotted("transformer.", *DEFAULT), 1.0),
    "original names": (lambda: dotted("diffusion_model.", rename=to_original), 1.0),
    "old diffusers": (lambda: dotted("transformer.", "lora.down.weight", "lora.up.weight"), 1.0),
    "attention processors": (
        lambda: {processor(key): tensor for key, tensor in dotted("transformer.").items()},
        1.0,
    ),
    "down and up": (lambda: dotted("", "lora_down.weight", "lora_up.weight"), 1.0),
    "alphas": (lambda: dotted("transformer.", alpha=2.0), 0.5),
    "down, up, alphas": (
        lambda: dotted("diffusion_model.", "lora_down.weight", "lora_up.weight", alpha=2.0),
        0.5,
    ),
    "original trainer": (lambda: flat("lora_unet__"), 0.5),
    "kohya": (lambda: flat("lora_unet_"), 0.5),
    "kohya, diffusers names": (lambda: flat("lora_unet_", same_name), 0.5),
    "kohya, two underscores": (lambda: flat("lora_unet__", same_name), 0.5),
    "kohya, by block": (lambda: flat("lora_unet_", per_block), 0.5),
    "kohya without alpha": (lambda: flat("lora_unet__", alpha=None), 1.0),
    "musubi": (lambda: flat("lora_transformer_"), 0.5),
    "LyCORIS": (lambda: flat("lycoris_"), 0.5),
    "1x1 convolutions": (
        lambda: {k: v[:, :, None, None] if v.dim() else v for k, v in flat("lora_unet__").items()},
        0.5,
    ),
    "alpha of one element": (
        lambda: {k: v if v.dim() else v[None] for k, v in flat("lora_unet__").items()},
        0.5,
    ),
    "bfloat16": (lambda: {k: v.bfloat16() for k, v in dotted("transformer.").items()}, 1.0),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_has_the_adapters_effect(tmp_path: Path, name: str) -> None:
    make, strength = LAYOUTS[name]
    path = save(tmp_path / "lora.safetensors", make())
    tolerance = 1e-2 if name == "bfloat16" else 1e-5
    assert_same(change(path), by_formula(strength), tolerance)


KEY = "transformer." + FIRST


ONE = torch.ones(1)


def with_key(key: str, tensor: Tensor = ONE) -> Make:
    return lambda: {**dotted("transformer."), key: tensor}


def times(key: str, factor: float) -> Make:
    return lambda: {k: v * factor if k == key else v for k, v in dotted("transformer.").items()}


def instead(key: str, tensor: Tensor) -> Make:
    return lambda: {**dotted("transformer."), key: tensor}


A, B = f"{KEY}.lora_A.weight", f"{KEY}.lora_B.weight"


REFUSED: dict[str, tuple[Make, str]] = {
    "text encoder": (
        with_key("text_encoder.layers.0.q.lora_A.weight"),
        r"1 of \d+ keys belong to a text encoder.*'text_encoder\.layers",
    ),
    "kohya's text encoder": (with_key("lora_te1_text_model_q.lora_up.weight"), "text encoder"),
    "diff_b": (with_key(f"{KEY}.diff_b"), rf"changed bias \(diff_b\).*{FIRST}"),
    "diff": (with_key(f"{KEY}.diff"), r"changed weight"),
    "DoRA of peft": (with_key(f"{KEY}.lora_magnitude_vector.weight"), "DoRA"),
    "DoRA of kohya": (with_key(f"{KEY}.dora_scale"), "DoRA"),
    "LoKr": (lambda: {"lycoris_a.lokr_w1": ONE, "lycoris_a.lokr_w2": ONE}, "LoKr"),
    "LoHa": (lambda: {"lycoris_a.hada_w1_a": ONE}, "LoHa"),
    "LoCon": (with_key(f"{KEY}.lora_mid.weight"), "lora_mid"),
    "a LoRA's bias": (with_key(f"{KEY}.lora_B.bias"), "lora_bias"),
    "whole weights": (with_key("transformer.proj_out.weight"), "key 'transformer.proj_out.weight'"),
    "NaN": (times(B, float("nan")), rf"'{B}': \d+ of \d+ values are NaN"),
    "infinite": (times(A, float("inf")), rf"'{A}': \d+ of \d+ values are NaN or infinite"),
    "beyond fp32": (instead(A, ADAPTER[FIRST].down.double() * 1e300), "NaN or infinite"),
    "alpha 0": (lambda: flat("lora_unet__", alpha=0.0), "alpha' is 0: such an adapter"),
    "alpha below 0": (lambda: flat("lora_unet__", alpha=-1.0), "alpha' is -1.0; it must be"),
    "alpha infinite": (lambda: flat("lora_unet__", alpha=float("inf")), "alpha' is inf; it must"),
    "alpha NaN": (lambda: flat("lora_unet__", alpha=float("nan")), "alpha' is nan; it must"),
    "alpha of two": (with_key(f"{KEY}.alpha", torch.ones(2)), r"shape \(2,\).*one number"),
    "alpha of none": (with_key(f"{KEY}.alpha", torch.ones(0)), r"shape \(0,\).*one number"),
    "complex alpha": (with_key(f"{KEY}.alpha", torch.ones(1) + 1j), "complex64; alpha must"),
    "rank 0": (instead(A, torch.zeros(0, 32)), r"\(0, 32\): a rank of 0"),
    "a scalar": (instead(A, torch.tensor(1.0)), r"has shape \(\); a factor is a matrix"),
    "a vector": (instead(A, torch.ones(32)), r"has shape \(32,\); a factor is a matrix"),
    "integers": (instead(A, torch.ones(RANK, 32, dtype=torch.int32)), "of type int32; allowed"),
    "complex": (instead(A, torch.ones(RANK, 32) + 1j), "of type complex64; allowed"),
    "a convolution": (instead(A, torch.ones(RANK, 32, 3, 3)), "a convolution's"),
    "a conv's module": (
        lambda: {
            "proj.lora_A.weight": torch.ones(2, 64, 1, 1),
            "proj.lora_B.weight": torch.ones(32, 2, 1, 1),
        },
        "module proj is a Conv2d",
    ),
    "two adapters": (with_key(f"{KEY}.lora_A.other.weight", torch.ones(RANK, 32)), "same factor"),
    "one module twice": (
        with_key(f"{FIRST}.lora_A.weight", torch.ones(RANK, 32)),
        "are one module",
    ),
    "another model's block": (
        with_key("refiner.transformer_blocks.0.attn1.to_q.lora_A.weight", ONE[None]),
        "are not in this transformer, first 'refiner",
    ),
    "a single block's last name": (
        lambda: {
            f"transformer.single_transformer_blocks.3.proj_out.lora_{half}.weight": ONE[None]
            for half in "AB"
        },
        "are not in this transformer, first 'transformer.single",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_lora_is_named(tmp_path: Path, name: str) -> None:
    make, said = REFUSED[name]
    path = save(tmp_path / "lora.safetensors", make())
    with pytest.raises(TuningError, match=said) as told:
        change(path)
    assert len(str(told.value)) < 500
    assert "\n" not in str(told.value)

"""LoRA files as people have them: each has its effect, or is refused as what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.loading.key_map import to_original
from reward_tuning.errors import TuningError
from reward_tuning.lora.export import import_adapter
from tests.reward_tuning.lora_layouts import (
    ADAPTER,
    FIRST,
    RANK,
    Tensors,
    cut,
    dotted,
    flat,
    peft_change,
    peft_folder,
    per_block,
    same_name,
    save,
)
from tests.reward_tuning.tiny_transformer import tiny_transformer

Make = Callable[[], Tensors]
MODEL = tiny_transformer().to("meta")


def change(path: Path) -> dict[str, Tensor]:
    """What a file adds to each weight: (alpha / rank) up down, fp64."""
    weights = import_adapter(path, MODEL)
    assert all(down.shape[0] == weights.rank for down, _ in weights.state.values())
    return {
        name: weights.alpha / weights.rank * (up.double() @ down.double())
        for name, (down, up) in weights.state.items()
    }


def assert_same(got: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert float((got[name] - tensor).norm() / tensor.norm()) < tolerance, name


def by_formula(strength: float) -> dict[str, Tensor]:
    """As `merge_lora` of the original trainer: strength times up times down."""
    return {path: strength * factors.product for path, factors in ADAPTER.items()}


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


@pytest.mark.parametrize(
    "name", ["lora.pt", "lora.bin", "lora.ckpt", "folder/step-100.safetensors"]
)
def test_a_pickle_or_a_folder_with_one_file(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, flat("lora_unet__"))
    source = path.parent if name.startswith("folder") else path
    assert_same(change(source), by_formula(0.5), 1e-5)


def test_a_pickle_with_the_ending_of_the_other_kind_and_a_trainers_dictionary(
    tmp_path: Path,
) -> None:
    torch.save({"state_dict": flat("lora_unet__"), "epoch": 3}, tmp_path / "a.safetensors")
    assert_same(change(tmp_path / "a.safetensors"), by_formula(0.5), 1e-5)
    save(tmp_path / "b.safetensors", flat("lora_unet__")).rename(tmp_path / "b.pt")
    assert_same(change(tmp_path / "b.pt"), by_formula(0.5), 1e-5)


def test_ranks_and_alphas_that_differ_by_module(tmp_path: Path) -> None:
    tensors = cut(flat("lora_unet__"), 2)
    key = "lora_unet__" + to_original(FIRST).replace(".", "_")
    wanted = by_formula(0.5)
    down, up = ADAPTER[FIRST]
    for alpha in (1.0, 3.0):  # of the others' strength, and of another
        file = save(tmp_path / "a.safetensors", {**tensors, f"{key}.alpha": torch.tensor(alpha)})
        wanted[FIRST] = alpha / 2 * (up[:, :2].double() @ down[:2].double())
        assert_same(change(file), wanted, 1e-6)
    assert import_adapter(file, MODEL).rank == RANK


PEFT: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "alpha pattern": {"alpha_pattern": {"to_q": 3, r"transformer_blocks\.1\..*": 5}},
    "gaussian start": {"init_lora_weights": "gaussian"},
    "orthogonal start": {"init_lora_weights": "orthogonal"},
    "layers": {"layers_to_transform": None, "revision": "main", "task_type": "FEATURE_EXTRACTION"},
}


@pytest.mark.parametrize("name", PEFT)
def test_a_peft_folder_has_the_effect_that_peft_gives_it(tmp_path: Path, name: str) -> None:
    folder = peft_folder(tmp_path, **PEFT[name])
    assert_same(change(folder), peft_change(folder), 1e-4)  # peft merges in fp32


def test_peft_with_a_rank_pattern_and_in_a_pickle(tmp_path: Path) -> None:
    tensors = cut(dotted("base_model.model."), 2)
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        folder = peft_folder(
            tmp_path / name / "mine",
            tensors,
            name,
            rank_pattern={FIRST: 2},
            alpha_pattern={FIRST: 3},
        )
        assert_same(change(folder), peft_change(folder), 1e-4)
        assert_same(change(folder.parent), change(folder), 1e-9)  # peft's own folder of a name
        assert_same(change(folder / name), change(folder), 1e-9)  # alpha from the config beside it
    folder = peft_folder(tmp_path / "wrong", tensors)
    with pytest.raises(TuningError, match=r"down \(2, 32\).* at rank 4"):
        change(folder)


def test_a_peft_file_without_its_config_has_no_strength(tmp_path: Path) -> None:
    path = save(tmp_path / "adapter_model.safetensors", dotted("base_model.model."))
    with pytest.raises(TuningError, match=r"alpha is in adapter_config\.json, which is missing"):
        change(path)


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


START = r"init_lora_weights is '{}', a start that changes the base.*convert it in peft"
FIELDS: list[tuple[dict[str, Any], str]] = [
    *(
        ({"init_lora_weights": start}, START.format(start))
        for start in ("pissa", "pissa_niter_16", "olora", "loftq", "corda", "lora_ga")
    ),
    ({"init_lora_weights": "novel"}, "'novel', which is not known"),
    ({"use_dora": True}, "'use_dora' is True"),
    ({"use_qalora": True}, "'use_qalora' is True"),
    ({"modules_to_save": ["proj_out"]}, r"'modules_to_save' is \['proj_out'\]"),
    ({"lora_bias": True}, "'lora_bias' is True"),
    ({"bias": "all"}, "bias is 'all'"),
    ({"fan_in_fan_out": True}, "'fan_in_fan_out' is True"),
    ({"layer_replication": [[0, 4]]}, "'layer_replication'"),
    ({"trainable_token_indices": [1]}, "'trainable_token_indices'"),
    ({"target_parameters": ["x"]}, "'target_parameters'"),
    ({"megatron_config": {"a": 1}}, "'megatron_config'"),
    ({"kasa_config": {"a": 1}}, "'kasa_config'"),
    ({"a_field_of_tomorrow": 3}, "'a_field_of_tomorrow' is 3"),
    ({"x" * 5000: "y" * 5000}, "which may change what a plain LoRA does"),
    ({"peft_type": "LOHA"}, "peft type 'LOHA'"),
    ({"r": None}, "r is None"),
    ({"r": 0}, "r is 0"),
    ({"r": True}, "r is True"),
    ({"r": 4.0}, "r is 4.0"),
    ({"r": 10**400}, "r is a int too long|r is 1000"),
    ({"lora_alpha": 0}, "lora_alpha is 0"),
    ({"lora_alpha": -4}, "lora_alpha is -4"),
    ({"lora_alpha": "8"}, "lora_alpha is '8'"),
    ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
    ({"lora_alpha": float("inf")}, "lora_alpha is inf"),
    ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
    ({"alpha_pattern": {"to_q": 0}}, "alpha_pattern is 0"),
    ({"alpha_pattern": ["to_q"]}, "alpha_pattern is .* an object"),
    ({"rank_pattern": {"to_q(": 2}}, "not a regular expression"),
    ({"rank_pattern": {"(a+)+": 2}}, "is not a module name"),
    # each of these would be tried for hours
    ({"alpha_pattern": {"(.|.)*X": 2}}, "is not a module name"),
    ({"alpha_pattern": {".*.*.*.*.*.*.*.*.*X": 2}}, "is not a module name"),
    ({"alpha_pattern": {".?" * 60 + "X": 2}}, "is not a module name"),
    ({"alpha_pattern": {"(.|.)" * 39 + "X": 2}}, "is not a module name"),
]


@pytest.mark.parametrize(("field", "said"), FIELDS)
def test_a_config_field_that_is_not_known_to_be_harmless_is_named(
    tmp_path: Path, field: dict[str, Any], said: str
) -> None:
    folder = peft_folder(tmp_path, **field)
    for path in (folder, folder / "adapter_model.safetensors"):
        with pytest.raises(TuningError, match=said) as told:
            change(path)
        assert len(str(told.value)) < 500
    # and in the header of a diffusers file
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    header = {"lora_adapter_metadata": json.dumps({f"transformer.{k}": config[k] for k in config})}
    file = save(tmp_path / "lora.safetensors", dotted("transformer."), header)
    with pytest.raises(TuningError, match=said):
        change(file)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"r": ' + "9" * 5000 + "}", "{", "[]", '"a"'])
def test_headers_that_hold_no_config_are_told(tmp_path: Path, text: str) -> None:
    header = {"lora_adapter_metadata": text}
    file = save(tmp_path / "lora.safetensors", dotted("transformer."), header)
    with pytest.raises(TuningError, match=r"in its header.*(JSON|object)") as told:
        change(file)
    assert len(str(told.value)) < 500


def test_pickles_that_hold_more_than_tensors_are_not_run(tmp_path: Path) -> None:
    class Loud:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": Loud()}, tmp_path / "lora.pt")
    with pytest.raises(TuningError, match="weights_only") as told:
        change(tmp_path / "lora.pt")
    assert not (tmp_path / "ran").exists()
    assert len(str(told.value)) < 500
    torch.save({"a": 3, **flat("lora_unet__")}, tmp_path / "lora.pt")
    with pytest.raises(TuningError, match="'a' is a int"):
        change(tmp_path / "lora.pt")
    (tmp_path / "lora.pt").write_bytes((tmp_path / "lora.pt").read_bytes()[:2000])
    with pytest.raises(TuningError, match="truncated"):
        change(tmp_path / "lora.pt")


def test_folders_that_say_too_little_are_told(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", flat("lora_unet__"))
    save(tmp_path / "b.safetensors", flat("lora_unet__"))
    with pytest.raises(TuningError, match=r"2 candidate files \(a\.safetensors, b"):
        change(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TuningError, match=r"neither adapter_model\.safetensors nor"):
        change(tmp_path)

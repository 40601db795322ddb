"""peft's configs: the strength that peft itself gives, and fields that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.errors import TuningError
from tests.reward_tuning.lora_layouts import (
    FIRST,
    assert_same,
    change,
    cut,
    dotted,
    peft_change,
    peft_folder,
    save,
)

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


START = r"init_lora_weights is '{}', a start that changes the base.*convert it in peft"


FIELDS: list[tuple[dict[str, Any], str]] = [
    *(
        ({"init_lora_weights": start}, START.format(start))
        for start in ("pissa", "pissa_niter_16", "olora", "loftq", "corda", "lora_ga")
    ),
    ({"init_lora_weights": "novel"}, "'novel', which is unknown here"),
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

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewards.core.tower_options import TowerOptions
from rewards.errors import RewardError
from rewards.qwen.files import (
    build_qwen_model,
    empty_model,
    expected_shapes,
    find_folder,
    load_tokenizer,
    new_name,
    read_config,
    read_folder,
)
from tests.rewards import tiny_qwen
from tests.rewards.tiny_qwen import old_name, write_folder

CPU = torch.device("cpu")

# config.json of Qwen/Qwen2-VL-7B-Instruct, as published; the 2B differs in the fields below.
CONFIG_7B: dict[str, Any] = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2_vl",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_chans": 3,
        "hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 152064,
}
CONFIG_2B = CONFIG_7B | {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
    "vision_config": CONFIG_7B["vision_config"] | {"hidden_size": 1536},
}


def published_names(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published files, written out from the architecture's description."""
    d, ff = config["hidden_size"], config["intermediate_size"]
    kv = d // config["num_attention_heads"] * config["num_key_value_heads"]
    v = config["vision_config"]["embed_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], d),
        "model.norm.weight": (d,),
        "visual.patch_embed.proj.weight": (v, 3, 2, 14, 14),
        "visual.merger.ln_q.weight": (v,),
        "visual.merger.ln_q.bias": (v,),
        "visual.merger.mlp.0.weight": (4 * v, 4 * v),
        "visual.merger.mlp.0.bias": (4 * v,),
        "visual.merger.mlp.2.weight": (d, 4 * v),
        "visual.merger.mlp.2.bias": (d,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], d)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        for name, out in (("q_proj", d), ("k_proj", kv), ("v_proj", kv)):
            shapes[f"{layer}self_attn.{name}.weight"] = (out, d)
            shapes[f"{layer}self_attn.{name}.bias"] = (out,)
        shapes[f"{layer}self_attn.o_proj.weight"] = (d, d)
        for name in ("gate_proj", "up_proj"):
            shapes[f"{layer}mlp.{name}.weight"] = (ff, d)
        shapes[f"{layer}mlp.down_proj.weight"] = (d, ff)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}{name}.weight"] = (d,)
    for i in range(config["vision_config"]["depth"]):
        block = f"visual.blocks.{i}."
        linear = {"attn.qkv": (3 * v, v), "attn.proj": (v, v), "mlp.fc1": (4 * v, v)}
        for name, shape in (linear | {"mlp.fc2": (v, 4 * v)}).items():
            shapes |= {f"{block}{name}.weight": shape, f"{block}{name}.bias": shape[:1]}
        for name in ("norm1", "norm2"):
            shapes |= {f"{block}{name}.weight": (v,), f"{block}{name}.bias": (v,)}
    return shapes


# Parameters as the publishers state them: 2.2 and 8.3 billion.
@pytest.mark.parametrize(
    ("said", "tensors", "parameters"),
    [(CONFIG_2B, 729, 2_208_985_600), (CONFIG_7B, 730, 8_291_375_616)],
    ids=["2B", "7B"],
)
def test_full_size_names_and_shapes(
    said: dict[str, Any], tensors: int, parameters: int, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(said))
    shapes = expected_shapes(read_config(tmp_path))
    old = {new_name(name): shape for name, shape in published_names(said).items()}
    assert {name: tuple(shape) for name, shape in shapes.items()} == old
    assert len(shapes) == tensors
    assert sum(shape.numel() for shape in shapes.values()) == parameters
    config = read_config(tmp_path)
    assert config.text_config.rope_parameters["mrope_section"] == [16, 24, 24]
    assert config.text_config.rope_parameters["rope_theta"] == 1e6


def test_rotary_tables_have_values_though_parameters_have_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_2B))
    model = empty_model(read_config(tmp_path))
    assert all(p.is_meta for p in model.parameters())
    table = model.model.language_model.rotary_emb.inv_freq
    expected = 1e6 ** (-torch.arange(0, 128, 2) / 128)
    torch.testing.assert_close(table, expected)


def test_names_old_and_new() -> None:
    for name in tiny_qwen.model().state_dict():
        assert new_name(old_name(name)) == name
        assert new_name(name) == name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("old", "files"), [(False, 1), (True, 3)])
def test_a_folder_comes_back_as_it_was(tmp_path: Path, tied: bool, old: bool, files: int) -> None:
    built = tiny_qwen.model(tied=tied)
    folder = write_folder(tmp_path / "q", built, old=old, files=files)
    loaded = build_qwen_model(
        read_config(folder), read_folder(folder), folder, TowerOptions(dtype=torch.float32)
    )
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    for (name, tensor), (again, other) in zip(
        built.state_dict().items(), loaded.state_dict().items(), strict=True
    ):
        assert name == again
        assert torch.equal(tensor, other)
    head, table = loaded.get_output_embeddings().weight, loaded.get_input_embeddings().weight
    assert (head is table) == tied
    tokens = torch.arange(12)[None]
    assert torch.equal(built(tokens).logits, loaded(tokens).logits)


def test_without_a_language_head(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "q", tiny_qwen.model())
    loaded = build_qwen_model(
        read_config(folder),
        read_folder(folder),
        folder,
        TowerOptions(dtype=torch.bfloat16),
        language_head=False,
    )
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert loaded.model.language_model.rotary_emb.inv_freq.dtype == torch.float32
    assert not any("lm_head" in name for name in loaded.state_dict())


def change(kind: str, state: dict[str, Tensor]) -> None:
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    match kind:
        case "missing":
            del state[name]
        case "unknown":
            state["model.visual.blocks.0.attn.query.weight"] = torch.zeros(3)
        case "another shape":
            state[name] = state[name][:-1]
        case "renamed":
            state["language_model.layers.1.mlp.up_proj.weight"] = state.pop(name)


@pytest.mark.parametrize("kind", ["missing", "unknown", "another shape", "renamed"])
def test_other_names_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "q", tiny_qwen.model())
    state = read_folder(folder)
    change(kind, state)
    named = r"attn\.query" if kind == "unknown" else r"layers\.1\.mlp\.up_proj\.weight"
    with pytest.raises(RewardError, match=named):
        build_qwen_model(read_config(folder), state, folder, TowerOptions(dtype=torch.float32))


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    extra = {"visual.merger.ln_q.bias": torch.zeros(32)}
    folder = write_folder(tmp_path / "q", tiny_qwen.model(), extra=extra)
    with pytest.raises(RewardError, match="twice"):
        read_folder(folder)


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "q", tiny_qwen.model(), files=3)
    part = folder / "model-00002-of-00003.safetensors"
    part.write_bytes(part.read_bytes()[:1000])
    with pytest.raises(RewardError, match=r"00002-of-00003.*truncated"):
        read_folder(folder)
    part.unlink()
    with pytest.raises(RewardError, match=r"lacks model-00002-of-00003\.safetensors"):
        read_folder(folder)
    with pytest.raises(RewardError, match=r"hf download org/nothing"):
        find_folder("org/nothing", tmp_path)
    with pytest.raises(RewardError, match=r"hf download Qwen/Qwen2-VL-7B-Instruct"):
        find_folder("qwen2-vl-7b", tmp_path)


def test_other_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    with pytest.raises(RewardError, match=r"'qwen2_5_vl'.*needs a qwen2_vl"):
        read_config(tmp_path)


def test_a_generators_checkpoint_is_a_qwen_folder_too(tmp_path: Path) -> None:
    write_folder(tmp_path / "gen" / "text_encoder", tiny_qwen.model())
    (tmp_path / "gen" / "tokenizer").mkdir()
    found = find_folder("gen", tmp_path)
    assert found.weights == tmp_path / "gen" / "text_encoder"
    assert found.tokenizer == tmp_path / "gen" / "tokenizer"


def test_a_judges_tokens_come_behind_the_others(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "q", tiny_qwen.model())
    rows = len(tiny_qwen.tokenizer())
    tokenizer = load_tokenizer(folder, ["<|A|>", "<|im_end|>", "<|B|>"])
    assert tokenizer.convert_tokens_to_ids(["<|A|>", "<|B|>"]) == [rows, rows + 1]
    assert tokenizer("x<|B|>")["input_ids"][-1] == rows + 1


def test_a_tokenizer_without_template_is_refused_and_one_beside_it_is_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "q", tiny_qwen.model())
    for file in folder.glob("chat_template*"):
        file.unlink()
    with pytest.raises(RewardError, match="no chat template"):
        load_tokenizer(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert load_tokenizer(folder).chat_template == "{{ messages }}"
    with pytest.raises(RewardError, match="tokenizer in"):
        load_tokenizer(tmp_path)

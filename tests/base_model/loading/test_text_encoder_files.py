"""Text encoders and tokenizers of every format, and faults that transformers accepts silently."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from base_model.errors import GeneratorError
from base_model.files.shipped import resolve_checkpoint
from base_model.loading.checkpoint import check_text_encoder, load_text_encoder
from base_model.loading.text_encoder_files import load_tokenizer
from tests.base_model.loading.test_checkpoint import edit_config
from tests.published_layout import (
    text_encoder_golden,
    write_text_encoder,
)


def test_the_slow_tokenizer_and_the_flat_config(tmp_path: Path) -> None:
    """Token ids and states of transformers 4.46.3, from its own files, padding included."""
    encoder = load_text_encoder(write_text_encoder(tmp_path))
    assert not (tmp_path / "tokenizer" / "tokenizer.json").exists()
    golden = text_encoder_golden()
    prompts = json.loads(golden.metadata["prompts"])
    states = encoder(prompts)
    for i, prompt in enumerate(prompts):
        conversation = encoder._conversation(prompt)
        ids = encoder.tokenizer(
            conversation, padding="max_length", padding_side="right", max_length=256
        )["input_ids"]
        assert ids == golden.tensors[f"ids.{i}"].tolist()
        assert (states[i] - golden.tensors[f"out.{i}"]).abs().max() < 1e-5


def edited(folder: Path, part: str, **changes: Any) -> None:
    path = folder / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "rope",
    [
        {"type": "mrope", "mrope_section": [2, 2, 2]},  # published
        {"type": "default", "rope_type": "default", "mrope_section": [2, 2, 2]},  # 4.46 saves
    ],
)
def test_both_ways_to_write_the_rotary_sections(tmp_path: Path, rope: dict[str, Any]) -> None:
    folder = write_text_encoder(tmp_path)
    edited(folder, "text_encoder", rope_scaling=rope, transformers_version="4.41.2")
    states = load_text_encoder(folder)(["a red ball"])
    assert (states[0] - text_encoder_golden().tensors["out.0"]).abs().max() < 1e-5


def test_a_quantised_text_encoder_is_named(tmp_path: Path) -> None:
    folder = write_text_encoder(tmp_path)
    edited(folder, "text_encoder", quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(GeneratorError, match=r"config\.json: quantization_config is set"):
        check_text_encoder(folder / "text_encoder")


TOKENIZERS: list[tuple[str, Callable[[Path], Any], str]] = [
    (
        "no vocabulary at all",
        lambda t: [(t / name).unlink() for name in ("vocab.json", "merges.txt")],
        r"neither tokenizer\.json nor both vocab\.json and merges\.txt, but tokenizer_config\.json",
    ),
    ("no merges", lambda t: (t / "merges.txt").unlink(), r"neither tokenizer\.json nor both"),
    (
        "no config",
        lambda t: (t / "tokenizer_config.json").unlink(),
        r"tokenizer_config\.json is missing",
    ),
    (
        "half a vocabulary",
        lambda t: (t / "vocab.json").write_text((t / "vocab.json").read_text()[:999]),
        r"cannot be loaded: Error while initializing BPE: EOF while parsing",
    ),
    (
        "half of the merges",
        lambda t: (t / "merges.txt").write_text((t / "merges.txt").read_text()[:74]),
        r"cannot be loaded: Error while initializing BPE: ",
    ),
]


@pytest.mark.parametrize(
    ("spoil", "message"), [t[1:] for t in TOKENIZERS], ids=[t[0] for t in TOKENIZERS]
)
def test_a_spoiled_tokenizer_is_told(
    tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    """transformers makes a tokenizer without words of the first, which turns texts into nothing."""
    part = write_text_encoder(tmp_path) / "tokenizer"
    assert len(load_tokenizer(part)("a red ball")["input_ids"]) > 1
    spoil(part)
    with pytest.raises(GeneratorError, match=message):
        load_tokenizer(part)


def test_a_tokenizer_of_another_text_encoder(tmp_path: Path) -> None:
    folder = write_text_encoder(tmp_path)
    path = folder / "tokenizer" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    last = max(map(int, config["added_tokens_decoder"]))
    for i in range(20):
        token = config["added_tokens_decoder"][str(last)] | {"content": f"<|more_{i}|>"}
        config["added_tokens_decoder"][str(last + 1 + i)] = token
    path.write_text(json.dumps(config))
    with pytest.raises(GeneratorError, match=r"tokenizer has 348 tokens, but .* has 332\. Use"):
        load_text_encoder(folder)


def spoil_text(part: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(part / "model.safetensors")
    edit(weights)
    save_file(weights, part / "model.safetensors", metadata={"format": "pt"})


def test_spoiled_text_encoders_are_told(tmp_path: Path, text_folder: Path) -> None:
    folder = tmp_path / "text"
    part = folder / "text_encoder"

    def fresh() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(text_folder, folder)

    fresh()
    name = next(
        k for k in load_file(part / "model.safetensors") if k.endswith("2.mlp.up_proj.weight")
    )
    spoil_text(part, lambda w: w.pop(name))
    with pytest.raises(GeneratorError, match=r"1 missing: .*layers\.2\.mlp\.up_proj\.weight"):
        load_text_encoder(folder)

    fresh()
    spoil_text(part, lambda w: w.update({"more.weight": torch.zeros(3)}))
    with pytest.raises(GeneratorError, match=r"1 unexpected: more\.weight"):
        load_text_encoder(folder)

    fresh()
    data = (part / "model.safetensors").read_bytes()
    (part / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(GeneratorError, match=r"model\.safetensors \([\d,]+ bytes\) cannot be read"):
        load_text_encoder(folder)

    fresh()
    edit_config(part, model_type="bert")
    with pytest.raises(
        GeneratorError, match=r"text encoder is 'bert', EasyAnimateV5.1 uses qwen2_vl"
    ):
        load_text_encoder(folder)

    fresh()
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    with pytest.raises(GeneratorError, match="tokenizer cannot be loaded"):
        load_text_encoder(folder)


@pytest.mark.parametrize(
    "changes", [{"hidden_size": 7}, {"num_hidden_layers": "2"}, {"num_attention_heads": 0}], ids=str
)
def test_sizes_that_describe_no_text_encoder_are_told(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = shutil.copytree(resolve_checkpoint("tiny"), tmp_path / "tiny")
    edit_config(folder / "text_encoder", **changes)
    with pytest.raises(GeneratorError, match=r"describes no Qwen2-VL that can be built") as told:
        load_text_encoder(folder)
    assert len(str(told.value)) < 500


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_tokenizers_that_are_nested_too_deep_are_told(tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(resolve_checkpoint("tiny"), tmp_path / "tiny")
    (folder / "tokenizer" / name).write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(GeneratorError, match="tokenizer cannot be loaded"):
        load_text_encoder(folder)


def test_a_chat_template_beside_the_tokenizer_is_found(tmp_path: Path, text_folder: Path) -> None:
    """The published checkpoints keep it in chat_template.json."""
    shutil.copytree(text_folder, tmp_path / "text")
    tokenizer = tmp_path / "text" / "tokenizer"
    expected = load_text_encoder(text_folder)(["a red ball"])
    template = load_text_encoder(text_folder).tokenizer.chat_template
    for path in tokenizer.glob("chat_template*"):
        path.unlink()
    (tokenizer / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert torch.equal(load_text_encoder(tmp_path / "text")(["a red ball"]), expected)


def test_code_beside_a_tokenizer_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor asked about: transformers would do that on the terminal."""
    part = write_text_encoder(tmp_path) / "tokenizer"
    mark = tmp_path / "ran"
    config = json.loads((part / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (part / "tokenizer_config.json").write_text(json.dumps(config))
    (part / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks whether to run code"))
    with pytest.raises(GeneratorError, match="tokenizer cannot be loaded"):
        load_tokenizer(part)
    assert not mark.exists()

"""Checkpoints whose tensors' names hold what wrappers and trainers put into them."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from base_model.convert.conversion import convert_checkpoint
from base_model.errors import GeneratorError
from base_model.loading.checkpoint import load_text_encoder, load_transformer, load_vae
from base_model.loading.name_prefixes import WRAPPERS, leading_wrappers, unwrapped
from tests.goldens import WEIGHT_FILE
from tests.published_layout import text_encoder_golden, write_published

Rename = Callable[[str], str]


def renamed(path: Path, rename: Rename) -> None:
    weights = load_file(path)
    save_file({rename(name): tensor for name, tensor in weights.items()}, path, {"format": "pt"})


def sharded(part: Path) -> None:
    """Two files and their index, whose names are those in the files."""
    weights = load_file(part / WEIGHT_FILE)
    (part / WEIGHT_FILE).unlink()
    where = {name: f"shard-{i % 2}.safetensors" for i, name in enumerate(sorted(weights))}
    for file in set(where.values()):
        save_file({n: t for n, t in weights.items() if where[n] == file}, part / file)
    (part / f"{WEIGHT_FILE}.index.json").write_text(json.dumps({"weight_map": where}))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


RENAMES: dict[str, Rename] = {
    "module": lambda n: f"module.{n}",
    "compiled": lambda n: f"_orig_mod.{n}",
    "both": lambda n: f"module._orig_mod.{n}",
    "fsdp": lambda n: f"_fsdp_wrapped_module.{n}".replace(".attn", "._fsdp_wrapped_module.attn"),
    "compiled blocks": lambda n: n.replace("blocks.1.", "blocks.1._orig_mod."),
    "checkpointed": lambda n: n.replace(".0.", ".0._checkpoint_wrapped_module."),
    "a trainer's": lambda n: f"transformer.{n}",
    "ComfyUI's": lambda n: f"model.diffusion_model.{n}",
    "a trainer's, wrapped": lambda n: f"module.model.{n}",
}


@pytest.mark.parametrize("shards", [False, True], ids=["file", "shards"])
@pytest.mark.parametrize("rename", RENAMES.values(), ids=RENAMES)
def test_read(tmp_path: Path, rename: Rename, shards: bool) -> None:
    folder = write_published(tmp_path / "checkpoint", "control")
    transformer, vae = load_transformer(folder).state_dict(), load_vae(folder).state_dict()
    for part in ("transformer", "vae"):
        renamed(folder / part / WEIGHT_FILE, rename)
        if shards:
            sharded(folder / part)
    assert same(load_transformer(folder).state_dict(), transformer)
    assert same(load_vae(folder).state_dict(), vae)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_text_encoder(tmp_path: Path, prefix: str) -> None:
    folder = write_published(tmp_path / "checkpoint", "text")
    renamed(folder / "text_encoder" / "model.safetensors", lambda n: prefix + n)
    states = load_text_encoder(folder)(["a red ball"])
    assert (states[0] - text_encoder_golden().tensors["out.0"]).abs().max() < 1e-5


def test_a_prefix_of_the_text_encoder_that_is_not_read_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_published(tmp_path / "checkpoint", "text")
    renamed(folder / "text_encoder" / "model.safetensors", lambda n: f"text_encoder.{n}")
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        with pytest.raises(GeneratorError, match=r"58 unexpected: text_encoder\.lm_head\.weight"):
            load_text_encoder(folder)
    finally:
        logger.removeHandler(caplog.handler)
    assert "LOAD REPORT" not in caplog.text  # transformers' own table


def test_a_conversion_writes_plain_names(tmp_path: Path) -> None:
    folder = write_published(tmp_path / "checkpoint", "inpaint")
    plain = load_file(folder / "transformer" / WEIGHT_FILE)
    for part in ("transformer", "vae"):
        renamed(folder / part / WEIGHT_FILE, RENAMES["both"])
    convert_checkpoint(folder, tmp_path / "diffusers", "diffusers")
    convert_checkpoint(tmp_path / "diffusers", tmp_path / "original", "original")
    assert same(load_file(tmp_path / "original" / "transformer" / WEIGHT_FILE), plain)
    assert same(load_vae(tmp_path / "diffusers").state_dict(), load_vae(folder).state_dict())

    renamed(folder / "text_encoder" / "model.safetensors", RENAMES["module"])
    with pytest.raises(GeneratorError, match=r"text_encoder: .* 'module\.' .*copied unchanged"):
        convert_checkpoint(folder, tmp_path / "more", "diffusers")


REFUSED: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "with an average beside it": (
        lambda w: (
            {f"model.{n}": t for n, t in w.items()} | {f"ema.{n}": t + 0 for n, t in w.items()}
        ),
        r"do not share one prefix: 'ema\.' \(\d+\), 'model\.' \(\d+\)\. The files must hold one",
    ),
    "some without": (
        lambda w: {n if n.startswith("norm") else f"net.{n}": t for n, t in w.items()},
        r"do not share one prefix: 'net\.' \(\d+\) and 6 without: norm_",
    ),
    "with and without": (
        lambda w: w | {"module.proj.bias": w["proj.bias"].clone()},
        r"1 tensors appear twice, .*: module\.proj\.bias and proj\.bias\. Keep one",
    ),
    "another network beside it": (
        lambda w: w | {"ema.proj.bias": w["proj.bias"].clone()},
        r"1 unexpected: ema\.proj\.bias",
    ),
}


@pytest.mark.parametrize(("edit", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_by_the_prefix(
    tmp_path: Path, edit: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    path = write_published(tmp_path / "checkpoint", "text") / "transformer" / WEIGHT_FILE
    save_file(edit(load_file(path)), path)
    with pytest.raises(GeneratorError, match=message):
        load_transformer(tmp_path / "checkpoint")


def test_no_network_has_a_wrappers_name(tmp_path: Path) -> None:
    folder = write_published(tmp_path / "checkpoint", "text")
    models: list[nn.Module] = [load_transformer(folder), load_vae(folder)]
    models.append(load_text_encoder(folder).text_encoder)
    for model in models:
        names = list(model.state_dict())
        assert [unwrapped(name) for name in names] == names
        assert leading_wrappers(names) == ""
    assert leading_wrappers(["module.a", "b"]) == ""
    assert leading_wrappers([f"{word}.module.a.{word}.b" for word in WRAPPERS[1:2]]) == (
        "_orig_mod.module."
    )


SHARDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a tensor in two of them": (
        lambda part: save_file(
            load_file(part / "shard-0.safetensors")
            | dict(list(load_file(part / "shard-1.safetensors").items())[:1]),
            part / "shard-0.safetensors",
        ),
        r"is in shard-0\.safetensors and in shard-1\.safetensors",
    ),
    "a file elsewhere": (
        lambda part: (part / f"{WEIGHT_FILE}.index.json").write_text(
            json.dumps({"weight_map": {"a": "../vae/x.safetensors"}})
        ),
        r"weight_map must name files of this folder, got '\.\./vae/x\.safetensors'",
    ),
    "no names": (
        lambda part: (part / f"{WEIGHT_FILE}.index.json").write_text('{"weight_map": {"a": 3}}'),
        r"weight_map must name files of this folder, got 3",
    ),
    "whole numbers": (
        lambda part: save_file(
            {n: t.to(torch.int8) for n, t in load_file(part / "shard-0.safetensors").items()},
            part / "shard-0.safetensors",
        ),
        r"without floating-point numbers, which means they are quantised: .* I8",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SHARDS.values(), ids=SHARDS)
def test_spoiled_shards(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    folder = write_published(tmp_path / "checkpoint", "text")
    sharded(folder / "transformer")
    load_transformer(folder)
    spoil(folder / "transformer")
    with pytest.raises(GeneratorError, match=message):
        load_transformer(folder)


def test_shards_without_an_index(tmp_path: Path) -> None:
    """EasyAnimate's loader takes every *.safetensors of the folder."""
    folder = write_published(tmp_path / "checkpoint", "text")
    expected = load_transformer(folder).state_dict()
    part = folder / "transformer"
    sharded(part)
    (part / f"{WEIGHT_FILE}.index.json").unlink()
    with pytest.raises(GeneratorError, match=r"holds 2 safetensors files and 0 index files"):
        load_transformer(folder)  # nothing says that they belong together
    for i in range(2):
        new = f"diffusion_pytorch_model-{i + 1:05d}-of-00002.safetensors"
        (part / f"shard-{i}.safetensors").rename(part / new)
    assert same(load_transformer(folder).state_dict(), expected)
    (part / "diffusion_pytorch_model-00001-of-00002.safetensors").unlink()
    with pytest.raises(
        GeneratorError, match=r"holds 1 of 2 shards and no index; number 1 are missing"
    ):
        load_transformer(folder)


def test_the_index_of_a_variant(tmp_path: Path) -> None:
    folder = write_published(tmp_path / "checkpoint", "text")
    expected = load_transformer(folder).state_dict()
    part = folder / "transformer"
    sharded(part)
    (part / f"{WEIGHT_FILE}.index.json").rename(part / f"{WEIGHT_FILE}.index.fp16.json")
    assert same(load_transformer(folder).state_dict(), expected)

"""Files of small decoders: what is read back, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from base_model.errors import GeneratorError
from base_model.files.shipped import WEIGHTS
from base_model.loading.checkpoint import load_vae
from base_model.loading.small_decoder import (
    find_small_decoder,
    load_small_decoder,
    write_small_decoder,
)
from base_model.networks.small_decoder import SmallDecoder, SmallDecoderConfig, vae_fingerprint

CONFIG = SmallDecoderConfig(widths=(32, 24, 8), blocks=(1, 1, 1))


@pytest.fixture(scope="module")
def vae() -> Any:
    return load_vae(WEIGHTS / "tiny")


@pytest.fixture
def file(tmp_path: Path, vae: Any) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "mine.safetensors"
    fingerprint = vae_fingerprint(vae)
    write_small_decoder(path, SmallDecoder(CONFIG), fingerprint=fingerprint, command="a command")
    return path


def test_what_is_written_is_read_back(file: Path, vae: Any) -> None:
    assert find_small_decoder(file, vae) == file
    decoder = load_small_decoder(file)
    assert decoder.config == CONFIG
    assert not decoder.training
    assert not any(parameter.requires_grad for parameter in decoder.parameters())
    stored = load_file(file)
    for name, tensor in decoder.state_dict().items():
        assert stored[name].dtype == torch.float16
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, stored[name].float())
    assert load_small_decoder(file, dtype=torch.bfloat16).read.weight.dtype == torch.bfloat16


def test_one_of_another_vae_is_refused(file: Path) -> None:
    other = load_vae(WEIGHTS / "tiny")
    other.decoder.conv_out.bias.data.add_(0.1)
    with pytest.raises(GeneratorError, match=r"mine\.safetensors was distilled from another VAE"):
        find_small_decoder(file, other)
    with pytest.raises(GeneratorError, match="pretrain small-decoder --recipe") as caught:
        find_small_decoder(None, other)
    assert vae_fingerprint(other)[:12] in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "hps"}, "is no small decoder"),
        ({"config": "{}"}, "describes no small decoder"),
        ({"config": json.dumps({**asdict(CONFIG), "wide": 1})}, "describes no small decoder"),
        ({"config": json.dumps(asdict(SmallDecoderConfig()))}, "do not fit the architecture"),
    ],
)
def test_damaged_files_are_refused(
    file: Path, change: dict[str, str], message: str, vae: Any
) -> None:
    metadata = {
        "kind": "small-decoder",
        "config": json.dumps(asdict(CONFIG)),
        "vae": vae_fingerprint(vae),
    }
    save_file(load_file(file), file, metadata=metadata | change)
    with pytest.raises(GeneratorError, match=message):
        load_small_decoder(file)


def test_a_file_of_something_else(tmp_path: Path, vae: Any) -> None:
    path = tmp_path / "text.safetensors"
    path.write_text("nothing of the kind")
    with pytest.raises(GeneratorError, match="cannot be read as a small decoder"):
        find_small_decoder(path, vae)

"""convert: there and back, its options, and what it refuses."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from base_model.files.shipped import WEIGHTS
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")
FILE = "transformer/diffusion_pytorch_model.safetensors"


def test_there_and_back(run: Command, tmp_path: Path) -> None:
    done = run("convert", "tiny", tmp_path / "there", "--layout", "original")
    assert done.code == 0, done.err
    assert done.out.startswith(f"{tmp_path / 'there'}: diffusers -> original, 341 tensors, ")
    assert "megabytes 16/16" in done.err
    weights = load_file(tmp_path / "there" / FILE)
    assert "transformer_blocks.0.attn2.to_q.weight" in weights
    done = run("convert", tmp_path / "there", tmp_path / "back", "--layout", "diffusers")
    assert done.code == 0, done.err
    assert (tmp_path / "back" / FILE).read_bytes() == (WEIGHTS / "tiny" / FILE).read_bytes()


def test_options(run: Command, tmp_path: Path) -> None:
    options = ["--layout", "diffusers", "--dtype", "bfloat16", "--max-shard-size", "1MB"]
    done = run("convert", "tiny", tmp_path / "new", *options)
    assert done.code == 0, done.err
    files = list((tmp_path / "new" / "transformer").glob("*.safetensors"))
    assert len(files) > 1
    assert {t.dtype for file in files for t in load_file(file).values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny", "new", "--layout", "peft"], "--layout: got 'peft'; allowed: original, diffusers"),
        (["tiny", "new", "--layout", "original", "--dtype", "int8"], "--dtype: got 'int8'"),
        (["tiny", "new", "--layout", "diffusers"], "is already in the diffusers layout"),
        (["nowhere", "new", "--layout", "diffusers"], "No generator checkpoint 'nowhere'"),
        (["tiny", ".", "--layout", "original"], "already exists"),
    ],
)
def test_refusals(
    run: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("convert", *arguments)
    assert done.code == 2
    assert message in done.err
    assert not list(tmp_path.iterdir())

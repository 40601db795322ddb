"""Metadata of safetensors files, as safetensors writes them and as damage leaves them."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from reward_tuning.files.safetensors_header import (
    MAX_HEADER,
    is_whole,
    safetensors_metadata,
    safetensors_shapes,
)


def test_metadata_are_those_that_safetensors_wrote(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata={"command": "make it — 做", "seed": "0"})
    assert safetensors_metadata(path) == {"command": "make it — 做", "seed": "0"}
    save_file({"a": torch.zeros(2)}, path)
    assert safetensors_metadata(path) == {}


def test_truncated_and_foreign_files_have_none(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata={"seed": "0"})
    path.write_bytes(path.read_bytes()[:20])
    assert safetensors_metadata(path) == {}
    path.write_bytes(b"no safetensors file at all, but a text of some length")
    assert safetensors_metadata(path) == {}
    path.write_bytes(b"")
    assert safetensors_metadata(path) == {}


def test_a_header_of_an_impossible_length_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    header = json.dumps({"__metadata__": {"seed": "0"}}).encode().ljust(MAX_HEADER + 1)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert safetensors_metadata(path) == {}


def test_shapes_are_those_of_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(())}, path, metadata={"seed": "0"})
    assert safetensors_shapes(path) == {"a": (2, 3), "b": ()}
    path.write_bytes(b"no safetensors file at all, but a text of some length")
    assert safetensors_shapes(path) == {}


def test_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(5)}, path)
    assert is_whole(path)
    content = path.read_bytes()
    for damaged in (content[:-1], content + b"0", content[:20], b"", b"a text of some length"):
        path.write_bytes(damaged)
        assert not is_whole(path)
    path.write_bytes((8).to_bytes(8, "little") + b"no json!")
    assert not is_whole(path)

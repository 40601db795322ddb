"""SHA-256 of texts, tensors and files, against the examples of FIPS 180-2."""

import hashlib
from pathlib import Path

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.files.hashes import (
    SAMPLE_BYTES,
    file_sha256,
    sampled_bytes,
    tensor_sha256,
    text_sha256,
)

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
MILLION = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"


def test_published_examples(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    (tmp_path / "million").write_bytes(b"a" * 1_000_000)
    assert text_sha256("abc") == file_sha256(tmp_path / "abc") == ABC
    assert file_sha256(tmp_path / "million") == MILLION
    assert tensor_sha256(torch.tensor([97, 98, 99], dtype=torch.uint8)) == ABC


def test_a_file_of_more_than_a_block_is_hashed_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096 + b"tail"  # 1 MiB and 4 bytes
    (tmp_path / "large").write_bytes(content)
    assert file_sha256(tmp_path / "large") == hashlib.sha256(content).hexdigest()


def test_a_tensor_is_hashed_as_it_is_read_and_not_as_it_is_stored() -> None:
    matrix = torch.arange(6.0).view(2, 3)
    transposed = matrix.t()  # another order, of the same memory
    for tensor in (matrix, transposed):
        data = tensor.contiguous().numpy().tobytes()
        assert tensor_sha256(tensor) == hashlib.sha256(data).hexdigest()
    assert tensor_sha256(transposed) != tensor_sha256(matrix)
    halves = matrix.to(torch.bfloat16)  # numpy has no bfloat16
    assert tensor_sha256(halves) != tensor_sha256(matrix)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=r"gone: cannot be read \(No such file"):
        file_sha256(tmp_path / "gone")


def test_large_files_are_sampled_from_head_to_tail(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = b"".join(bytes([i]) * SAMPLE_BYTES for i in range(10))
    path.write_bytes(content)
    assert list(sampled_bytes(path, whole=len(content), samples=4)) == [content]
    found = list(sampled_bytes(path, whole=len(content) - 1, samples=4))
    assert found == [bytes([i]) * SAMPLE_BYTES for i in (0, 3, 6, 9)]

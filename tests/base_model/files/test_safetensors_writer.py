"""The streamed file against the library's own: the same bytes."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from base_model.files.safetensors_writer import DTYPES, TensorSpec, write_tensors


def spec(name: str, tensor: Tensor) -> TensorSpec:
    dtype = next(key for key, value in DTYPES.items() if value == tensor.dtype)
    return TensorSpec(name, dtype, tuple(tensor.shape))


def some_tensors() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    numbers = torch.randn(3, 5, generator=draw)
    odd = torch.tensor([float("nan"), -0.0, float("inf"), 1e-45])
    odd.view(torch.int32)[0] |= 0x1234  # a NaN with a payload
    return {
        "b.weight": numbers,
        "a.weight": numbers[:, ::2],  # not contiguous
        "名字": torch.tensor(3.0),
        "odd": odd,
        "half": numbers.to(torch.bfloat16),
        "sixteen": numbers.to(torch.float16),
        "double": numbers.double(),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "signs": torch.tensor([True, False, True]),
        "eight": numbers.to(torch.float8_e4m3fn),
        "empty": torch.zeros(0, 4),
        "count": torch.tensor([1, 2]),
    }


def test_the_librarys_own_bytes(tmp_path: Path) -> None:
    tensors = some_tensors()
    counted: list[int] = []
    specs = [spec(name, tensor) for name, tensor in tensors.items()]
    write_tensors(tmp_path / "ours", specs, lambda name: tensors[name], wrote=counted.append)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert sum(counted) == sum(t.numel() * t.element_size() for t in tensors.values())


@pytest.mark.parametrize("dtype", [d for d in DTYPES.values() if d != torch.bool])
def test_each_dtype_alone_is_read_back(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.arange(6).to(dtype).view(2, 3)
    write_tensors(tmp_path / "file", [spec("x", tensor)], lambda name: tensor)
    read = load_file(tmp_path / "file")["x"]
    assert read.dtype == dtype
    assert torch.equal(read.double(), torch.arange(6).double().view(2, 3))
    with safe_open(tmp_path / "file", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        write_tensors(tmp_path / "file", [], lambda name: torch.zeros(1))
    assert (tmp_path / "file").read_text() == "mine"

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from base_model.files.reproducible import save_reproducibly

TENSORS = {
    "b": torch.arange(6.0).view(2, 3),
    "a.half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "transposed": torch.arange(6).view(2, 3).T,
    "scalar": torch.tensor(3.0, dtype=torch.float16),
}
METADATA = {"format": "pt", "command": "make it — 做", "version": "1", "seed": "0", "z": ""}


def test_content_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_reproducibly(path, TENSORS, METADATA)
    loaded = load_file(path)
    assert set(loaded) == set(TENSORS)
    for name, value in TENSORS.items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value)
    with safe_open(path, "pt") as file:
        assert file.metadata() == METADATA


def test_bytes_are_the_same_each_time(tmp_path: Path) -> None:
    """The library alone writes the five entries in 120 orders."""
    path = tmp_path / "model.safetensors"
    written = set()
    for turn in (1, -1, 1, -1, 1):
        save_reproducibly(
            path, dict(list(TENSORS.items())[::turn]), dict([*METADATA.items()][::turn])
        )
        written.add(path.read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize("length", range(9))
def test_data_stay_aligned(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.safetensors"
    save_reproducibly(path, TENSORS, {"format": "pt", "command": "x" * length})
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
    assert torch.equal(load_file(path)["b"], TENSORS["b"])


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_reproducibly(path, TENSORS, METADATA)
    before = path.read_bytes()

    def full(_path: Path, _content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_reproducibly(path, {}, {})
    assert path.read_bytes() == before

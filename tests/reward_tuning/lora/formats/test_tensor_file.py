"""Safetensors files and folders: reproducible bytes, written whole, truncated ones refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from base_model.files import reproducible as weight_file
from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import (
    LoraWeights,
)
from reward_tuning.lora.export import (
    FORMATS,
    export_adapter,
    import_adapter,
)
from reward_tuning.lora.formats import tensor_file
from tests.reward_tuning.lora.test_export import NAMES, same, tuned
from tests.reward_tuning.tiny_transformer import tiny_transformer


def test_the_same_adapter_gives_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(4.0), "a": torch.ones(2, 3)}
    metadata = dict.fromkeys(["format", "sshs_model_hash", "sshs_legacy_hash", "one"], "x")
    ours = {weight_file.safetensors_bytes(tensors, metadata) for _ in range(20)}
    ours.add(weight_file.safetensors_bytes(tensors, dict(reversed(metadata.items()))))
    assert len(ours) == 1
    # the control: the library alone orders metadata by a random hash
    assert len({safetensors.torch.save(tensors, metadata) for _ in range(20)}) > 1
    path = tmp_path / "x.safetensors"
    path.write_bytes(weight_file.safetensors_bytes(tensors, {"k": "ü", "a": "b"}))
    read, metadata = tensor_file.read_tensors(path)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[k], tensors[k]) for k in tensors)
    assert metadata == {"k": "ü", "a": "b"}


@pytest.mark.parametrize("format", FORMATS)
def test_truncated_files_are_told(tmp_path: Path, format: str) -> None:
    _, weights = tuned("attention")
    path = export_adapter(weights, tmp_path / NAMES[format], format)
    file = path / "adapter_model.safetensors" if format == "peft" else path
    content = file.read_bytes()
    for length in (0, 5, 200, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(TuningError, match="truncated"):
            import_adapter(path, tiny_transformer())


@pytest.mark.parametrize("format", FORMATS)
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, weights = tuned("attention")
    path = export_adapter(weights, tmp_path / NAMES[format], format)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reward_tuning.files.atomic_write.os.fsync", full)
    other = LoraWeights(4, 8.0, weights.state)
    with pytest.raises(TuningError, match="No space left"):
        export_adapter(other, path, format)
    monkeypatch.undo()
    assert same(import_adapter(path, tiny_transformer()), weights)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no leftovers
    export_adapter(other, path, format)
    assert import_adapter(path, tiny_transformer()).alpha == 8.0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("format", FORMATS)
def test_a_stopped_write_leaves_what_was_there(
    tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, weights = tuned("attention")

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    for earlier in ([], [NAMES[format]]):
        monkeypatch.setattr("reward_tuning.files.atomic_write.os.fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            export_adapter(LoraWeights(4, 8.0, weights.state), tmp_path / NAMES[format], format)
        monkeypatch.undo()
        assert [path.name for path in tmp_path.iterdir()] == earlier
        export_adapter(weights, tmp_path / NAMES[format], format)
    assert same(import_adapter(tmp_path / NAMES[format], tiny_transformer()), weights)


def test_a_folder_that_is_no_export_is_not_replaced(tmp_path: Path) -> None:
    _, weights = tuned("attention")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("dear")
    with pytest.raises(TuningError, match="is not an earlier export"):
        export_adapter(weights, tmp_path / "photos", "peft")
    assert (tmp_path / "photos" / "a.jpg").read_text() == "dear"

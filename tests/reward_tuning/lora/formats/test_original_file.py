"""The original trainer's file, against one that it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import (
    linear_modules,
)
from reward_tuning.lora.export import (
    export_adapter,
    import_adapter,
)
from reward_tuning.lora.formats import original_file, tensor_file
from tests.reward_tuning.lora.test_export import tuned
from tests.reward_tuning.tiny_transformer import tiny_transformer

GOLDEN = Path(__file__).parents[3] / "golden"


def test_original_layout_is_the_trainers_own(tmp_path: Path) -> None:
    """Our export of the golden LoRA has the golden file's names, values and digests."""
    golden = GOLDEN / "lora_original_layout.safetensors"
    weights = import_adapter(golden, tiny_transformer())
    assert (weights.rank, weights.alpha) == (4, 2.0)
    assert set(weights.state) == set(linear_modules(tiny_transformer()))
    path = export_adapter(weights, tmp_path / "lora.safetensors", "original")
    ours, theirs = load_file(path), load_file(golden)
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert ours[key].shape == tensor.shape
        assert torch.equal(ours[key], tensor)
    digests = tensor_file.read_header(golden)
    assert len(digests) == 2
    assert digests.items() <= tensor_file.read_header(path).items()


def test_modules_without_alpha_count_once(tmp_path: Path) -> None:
    """As the original reader: no alpha is strength 1, so alpha = rank."""
    _, weights = tuned("attention")
    path = export_adapter(weights, tmp_path / "a.safetensors", "original")
    tensors = {k: t for k, t in load_file(path).items() if not k.endswith(".alpha")}
    save_file(tensors, tmp_path / "b.safetensors")
    assert import_adapter(tmp_path / "b.safetensors", tiny_transformer()).alpha == 4.0


@pytest.mark.parametrize("half", ["down", "up"])
def test_half_a_pair_is_told(tmp_path: Path, half: str) -> None:
    _, weights = tuned("attention")
    file = export_adapter(weights, tmp_path / "lora.safetensors", "original")
    tensors = load_file(file)
    key = original_file.original_key("transformer_blocks.0.attn1.to_q")
    save_file({k: t for k, t in tensors.items() if k != f"{key}.lora_{half}.weight"}, file)
    with pytest.raises(TuningError, match=rf"'{key}' lacks its {half}"):
        import_adapter(file, tiny_transformer())

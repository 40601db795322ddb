"""The peft folder, read by peft."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel

from reward_tuning.lora.export import (
    export_adapter,
)
from tests.reward_tuning.lora.test_export import tuned
from tests.reward_tuning.tiny_transformer import inputs, tiny_transformer, velocity


def test_peft_reads_the_folder(tmp_path: Path) -> None:
    transformer, weights = tuned()
    expected = velocity(transformer, *inputs())
    export_adapter(weights, tmp_path / "lora", "peft")
    base = tiny_transformer()
    assert not torch.allclose(velocity(base, *inputs()), expected, rtol=1e-2)
    model = PeftModel.from_pretrained(base, str(tmp_path / "lora"))
    assert torch.equal(velocity(model.base_model.model, *inputs()), expected)

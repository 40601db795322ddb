"""Modules of different rank and strength become one adapter with the same effect."""

from __future__ import annotations

from pathlib import Path

import torch

from base_model.loading.key_map import to_original
from reward_tuning.lora.export import import_adapter
from tests.reward_tuning.lora_layouts import (
    ADAPTER,
    FIRST,
    MODEL,
    RANK,
    assert_same,
    by_formula,
    change,
    cut,
    flat,
    save,
)


def test_ranks_and_alphas_that_differ_by_module(tmp_path: Path) -> None:
    tensors = cut(flat("lora_unet__"), 2)
    key = "lora_unet__" + to_original(FIRST).replace(".", "_")
    wanted = by_formula(0.5)
    down, up = ADAPTER[FIRST]
    for alpha in (1.0, 3.0):  # of the others' strength, and of another
        file = save(tmp_path / "a.safetensors", {**tensors, f"{key}.alpha": torch.tensor(alpha)})
        wanted[FIRST] = alpha / 2 * (up[:, :2].double() @ down[:2].double())
        assert_same(change(file), wanted, 1e-6)
    assert import_adapter(file, MODEL).rank == RANK

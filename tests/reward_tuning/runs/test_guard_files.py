"""Rows of guards.jsonl and the adapters that may be exported, on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from reward_tuning.errors import TuningError
from reward_tuning.runs.guard_files import (
    best_file,
    read_best,
    read_guard_rows,
    remove_best_but,
    save_best,
    write_guard_rows,
)
from reward_tuning.schema.loading import load_recipe
from tests.reward_tuning.full_disk import largest_file
from tests.reward_tuning.recipes_for_tests import write_recipe


def steps_kept(path: Path, steps: int, every: int, final: int = 100) -> list[int]:
    return [row["step"] for row in read_guard_rows(path, steps, every, final)]


def test_rows_after_the_state_and_of_a_shorter_run_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "guards.jsonl"
    assert read_guard_rows(path, 9, 2, 9) == []
    write_guard_rows(path, [{"step": step, "text": "猫"} for step in (2, 4, 5, 6, 8)])
    assert steps_kept(path, 6, 2) == [2, 4, 6]
    assert steps_kept(path, 5, 2, final=5) == [2, 4, 5]
    assert steps_kept(path, 5, 2, final=7) == [2, 4]  # 5 was the last step of a shorter run
    assert steps_kept(path, 9, 4) == [4, 8]
    assert read_guard_rows(path, 2, 2, 4) == [{"step": 2, "text": "猫"}]


def test_damaged_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "guards.jsonl"
    path.write_text('{"step": 2}\n{"st', encoding="utf-8")
    with pytest.raises(TuningError, match=r"guards\.jsonl is damaged"):
        read_guard_rows(path, 2, 2, 4)


def test_an_adapter_reads_back_with_its_strength(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path))
    adapter = {"a.lora_A.weight": torch.randn(2, 3).T}
    save_best(tmp_path, 20, adapter, recipe)
    found = read_best(tmp_path, 20)
    assert torch.equal(found["a.lora_A.weight"], adapter["a.lora_A.weight"])
    with safe_open(best_file(tmp_path, 20), "pt") as file:
        assert '"r": 8' in str(file.metadata())
        assert '"lora_alpha": 4' in str(file.metadata())
    with pytest.raises(TuningError, match=r"best-000040\.safetensors.*guards\.best=false"):
        read_best(tmp_path, 40)


def test_a_full_disk_leaves_the_earlier_rows(tmp_path: Path) -> None:
    path = tmp_path / "guards.jsonl"
    write_guard_rows(path, [{"step": 2}])
    with largest_file(20), pytest.raises(TuningError, match="could not be written"):
        write_guard_rows(path, [{"step": 2}, {"step": 4}])
    assert steps_kept(path, 4, 2) == [2]


def test_only_what_is_needed_stays(tmp_path: Path) -> None:
    for step in (20, 40, 60):
        best_file(tmp_path, step).write_bytes(b"")
    (tmp_path / "best-friends.safetensors").write_bytes(b"")
    remove_best_but(tmp_path, [40])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best-000040.safetensors",
        "best-friends.safetensors",
    ]

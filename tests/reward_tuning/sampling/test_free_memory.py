"""Free memory: the smaller of the machine and its container."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reward_tuning.sampling import free_memory

CPU = torch.device("cpu")


def test_a_container_s_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "CGROUP", tmp_path)
    whole = free_memory.free_memory(CPU)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 50000\n")
    assert free_memory.free_memory(CPU) == 350_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory.free_memory(CPU) > whole / 2

"""Free memory: the smaller of the machine and its container."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reward_tuning.sampling import free_memory
from tests.reward_tuning.sampling.test_cgroups import write

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("groups", "folder", "names"),
    [
        ("0::/", "", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:memory:/docker/abc",
            "memory/docker/abc",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_a_container_s_limit_counts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    groups: str,
    folder: str,
    names: tuple[str, str, str],
) -> None:
    monkeypatch.setattr(free_memory, "ROOT", tmp_path)
    whole = free_memory.free_memory(CPU)  # no cgroups at all
    assert whole > 10**8
    most, used, cached = names
    group = tmp_path / "sys/fs/cgroup" / folder
    write(tmp_path / "proc/self/cgroup", f"{groups}\n")
    write(group / most, "1000000\n")
    write(group / used, "700000\n")
    write(group / "memory.stat", f"anon 1\n{cached} 50000\n")
    assert free_memory.free_memory(CPU) == 350_000
    write(group / most, "max\n" if most == "memory.max" else "9223372036854771712\n")
    assert free_memory.free_memory(CPU) > whole / 2

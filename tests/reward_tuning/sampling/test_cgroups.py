"""Limits of containers, in file systems as Linux shows them."""

from pathlib import Path

import pytest

from reward_tuning.sampling.cgroups import MemoryLimit, core_quota, memory_limit


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def version_2(root: Path, own: str = "/") -> Path:
    write(root / "proc/self/cgroup", f"0::{own}\n")
    return root


def test_no_limit_where_there_is_none(tmp_path: Path) -> None:
    root = version_2(tmp_path)
    write(root / "sys/fs/cgroup/cpu.max", "max 100000\n")
    write(root / "sys/fs/cgroup/memory.max", "max\n")
    write(root / "sys/fs/cgroup/memory.current", "5\n")
    assert core_quota(root) is None
    assert memory_limit(root) is None


def test_version_2_in_a_container(tmp_path: Path) -> None:
    root = version_2(tmp_path)
    write(root / "sys/fs/cgroup/cpu.max", "250000 100000\n")
    write(root / "sys/fs/cgroup/memory.max", "8000\n")
    write(root / "sys/fs/cgroup/memory.current", "6000\n")
    write(root / "sys/fs/cgroup/memory.stat", "anon 4000\ninactive_file 1500\n")
    assert core_quota(root) == 2.5
    assert memory_limit(root) == MemoryLimit(8000, 3500)


def test_the_tightest_of_the_groups_above_counts(tmp_path: Path) -> None:
    root = version_2(tmp_path, "/slurm/job_1/step_0")
    mount = root / "sys/fs/cgroup"
    write(mount / "slurm/job_1/step_0/cpu.max", "max 100000")
    write(mount / "slurm/job_1/cpu.max", "400000 100000")
    write(mount / "slurm/cpu.max", "1600000 100000")
    write(mount / "slurm/job_1/step_0/memory.max", "900")
    write(mount / "slurm/job_1/step_0/memory.current", "100")
    write(mount / "slurm/job_1/memory.max", "1000")
    write(mount / "slurm/job_1/memory.current", "700")
    assert core_quota(root) == 4.0
    assert memory_limit(root) == MemoryLimit(1000, 300)


def test_a_path_from_outside_the_namespace_leads_to_the_topmost(tmp_path: Path) -> None:
    root = version_2(tmp_path, "/../../job")
    write(root / "sys/fs/cgroup/cpu.max", "50000 100000")
    assert core_quota(root) == 0.5


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_version_1(tmp_path: Path, mount: str) -> None:
    lines = ["4:memory:/docker/abc", f"3:{mount}:/docker/abc", "1:name=systemd:/", "0::/"]
    write(tmp_path / "proc/self/cgroup", "\n".join(lines) + "\n")
    groups = tmp_path / "sys/fs/cgroup"
    write(groups / mount / "docker/abc/cpu.cfs_quota_us", "150000")
    write(groups / mount / "docker/abc/cpu.cfs_period_us", "100000")
    write(groups / mount / "cpu.cfs_quota_us", "-1")
    write(groups / "memory/docker/abc/memory.limit_in_bytes", "2000")
    write(groups / "memory/docker/abc/memory.usage_in_bytes", "1200")
    write(groups / "memory/docker/abc/memory.stat", "total_inactive_file 200\n")
    write(groups / "memory/memory.limit_in_bytes", "9223372036854771712")
    write(groups / "memory/memory.usage_in_bytes", "1500")
    assert core_quota(tmp_path) == 1.5
    assert memory_limit(tmp_path) == MemoryLimit(2000, 1000)

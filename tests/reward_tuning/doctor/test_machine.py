"""Facts of machines that do not exist, and of this one."""

import platform
import time
from pathlib import Path

import psutil
import pytest

from reward_tuning.doctor import machine
from reward_tuning.doctor.facts import Fact
from tests.reward_tuning.sampling.test_cgroups import write

INTEL = "processor\t: 0\nmodel name\t: Some Xeon\nflags\t\t: fpu avx512_bf16 amx_bf16\n"
OLD = "processor\t: 0\nmodel name\t: Some Core\nflags\t\t: fpu sse avx2\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n"


def only(facts: object) -> Fact:
    (fact,) = facts  # type: ignore[misc]
    assert isinstance(fact, Fact)
    return fact


def container(root: Path, cores: str = "max 100000", memory: str = "max") -> Path:
    write(root / "proc/self/cgroup", "0::/\n")
    write(root / "sys/fs/cgroup/cpu.max", cores)
    write(root / "sys/fs/cgroup/memory.max", memory)
    write(root / "sys/fs/cgroup/memory.current", "1000000000")
    return root


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        (INTEL, "Some Xeon", "yes: avx512_bf16, amx_bf16"),
        (OLD, "Some Core", "no instructions for it"),
        (ARM, platform.machine(), "yes: bf16"),
    ],
)
def test_processor(tmp_path: Path, text: str, name: str, value: str) -> None:
    write(tmp_path / "proc/cpuinfo", text)
    processor, products = machine.processor_facts(tmp_path)
    assert (processor.value, products.value) == (name, value)
    assert ("generator.vae_dtype=bfloat16" in products.todo) == value.startswith("yes")


def test_a_processor_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    processor, products = machine.processor_facts(tmp_path)
    assert processor.value == "arm"
    assert products.value == "this system does not tell"


@pytest.mark.parametrize(
    ("quota", "threads", "mark", "todo"),
    [
        ("max 100000", "", "ok", ""),
        ("250000 100000", "", "note", "export OMP_NUM_THREADS=2:"),
        ("50000 100000", "", "note", "export OMP_NUM_THREADS=1:"),
        ("250000 100000", "2", "ok", ""),
        ("max 100000", "64", "note", "export OMP_NUM_THREADS=16:"),
        ("max 100000", "many", "ok", ""),
    ],
)
def test_cores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quota: str,
    threads: str,
    mark: str,
    todo: str,
) -> None:
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    fact = only(machine.cores_fact(container(tmp_path, quota), {"OMP_NUM_THREADS": threads}))
    assert fact.value.startswith("16 usable of 64")
    assert ("2.5 cores" in fact.value) == quota.startswith("250000")
    assert fact.mark == mark
    assert fact.todo.startswith(todo)
    assert bool(fact.todo) == bool(todo)


def test_memory_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: _memory(64e9, 50e9))
    roomy = only(machine.memory_fact(container(tmp_path, memory="40000000000")))
    assert roomy.mark == "ok"
    assert roomy.value == "64 GB, 50 GB free; a container's limit of 40 GB, 39 GB free"
    assert machine.total_memory(tmp_path) == 40_000_000_000
    tight = only(machine.memory_fact(container(tmp_path, memory="2500000000")))
    assert tight.mark == "note"
    assert "1.4 GB" in tight.todo
    free = only(machine.memory_fact(container(tmp_path)))
    assert free.value == "64 GB, 50 GB free"
    assert machine.total_memory(tmp_path) == 64_000_000_000


def _memory(total: float, available: float) -> object:
    class Memory:
        pass

    found = Memory()
    found.total, found.available = int(total), int(available)  # type: ignore[attr-defined]
    return found


def test_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource", reason="needs a system with limits of open files")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 2048))
    fact = only(machine.open_files_fact())
    assert (fact.mark, fact.value, fact.todo) == ("note", "at most 256", "ulimit -n 2048")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4096, 4096))
    assert only(machine.open_files_fact()).mark == "ok"
    endless = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (endless, endless))
    assert only(machine.open_files_fact()).value == "no limit"


def test_a_clock_before_the_newest_file() -> None:
    fact = only(machine.clock_fact(now=0.0, newest=1_800_000_000.0))
    assert fact.mark == "note"
    assert fact.value.startswith("1970-01-01 00:00:00 UTC, which is before")
    assert "2027-01-15" in fact.value
    assert "set the clock" in fact.todo
    assert only(machine.clock_fact(now=1_800_000_000.0, newest=1_800_000_050.0)).mark == "ok"


def test_this_clock_is_compared_with_this_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(machine.clock_fact()).mark == "ok"
    before = Path(machine.__file__).stat().st_mtime - 3600
    monkeypatch.setattr(time, "time", lambda: before)
    assert only(machine.clock_fact()).mark == "note"


def test_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(
        platform, "freedesktop_os_release", lambda: {"PRETTY_NAME": "Some Linux 12"}
    )
    fact = only(machine.system_fact())
    assert (fact.mark, fact.value.endswith(", Some Linux 12")) == ("ok", True)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert only(machine.system_fact()).mark == "note"

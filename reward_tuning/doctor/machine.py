"""The machine: system, processor, cores, memory, open files, clock."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from reward_tuning.doctor.facts import Fact, Mark, gigabytes
from reward_tuning.sampling.cgroups import core_quota, memory_limit
from reward_tuning.schema.locate import shipped_folder

GROUP = "machine"
LEAST_MEMORY = 2_000_000_000
"""Bytes below which there is a note: `tiny-demo` peaks at 1.4 GB."""
LEAST_FILES = 1024
"""Open files below which there is a note: a run with clips and several processes may need more."""
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
"""Flags of processors with products in bfloat16; `bf16` is that of 64-bit Arm."""
CLOCK_SLACK = 60.0  # seconds by which two clocks may differ without harm


def system_fact() -> Iterator[Fact]:
    """Yield the operating system."""
    name = platform.system()
    value = f"{name} {platform.release()} {platform.machine()}"
    if name == "Linux":
        try:
            value += f", {platform.freedesktop_os_release()['PRETTY_NAME']}"
        except (OSError, KeyError):
            value += ", distribution unknown"
        yield Fact(GROUP, "system", value)
        return
    todo = "nothing to do; the tests run on Linux alone, so report what does not work here"
    yield Fact(GROUP, "system", value, "note", todo)


def processor_facts(root: Path = Path("/")) -> Iterator[Fact]:
    """Yield the processor, and whether it multiplies in bfloat16.

    Args:
        root: Folder that stands for the root of the file system.
    """
    name, flags = _processor(root)
    yield Fact(GROUP, "processor", name or "unknown")
    here = [flag for flag in BFLOAT16 if flag in flags]
    if here:
        todo = "set generator.vae_dtype=bfloat16 where a run trains on the CPU: the reward phase "
        todo += "then takes two thirds of its time (docs/performance.md)"
        yield Fact(GROUP, "bfloat16 on the CPU", f"yes: {', '.join(here)}", "ok", todo)
    elif flags:
        todo = "keep generator.dtype and generator.vae_dtype at float32 on the CPU"
        yield Fact(GROUP, "bfloat16 on the CPU", "no instructions for it", "ok", todo)
    else:
        yield Fact(GROUP, "bfloat16 on the CPU", "this system does not tell")


def _processor(root: Path) -> tuple[str, set[str]]:
    """Return the processor's name and flags; nothing where there is no /proc."""
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor(), set()
    lines = (line.partition(":") for line in text.splitlines())
    about: dict[str, str] = {}
    for key, _, value in lines:
        about.setdefault(key.strip().lower(), value.strip())
    flags = about.get("flags") or about.get("features") or ""
    return about.get("model name") or platform.machine(), set(flags.split())


def cores_fact(
    root: Path = Path("/"), environment: Mapping[str, str] = os.environ
) -> Iterator[Fact]:
    """Yield the cores that this process may use: its affinity, and a container's quota."""
    there = os.cpu_count() or 1
    usable = _usable_cores(there)
    value = f"{usable} usable of {there}"
    quota = core_quota(root)
    threads = environment.get("OMP_NUM_THREADS", "")
    if threads:
        value += f"; OMP_NUM_THREADS is {threads}"
    mark, todo = _threads_note(usable, quota, threads)
    if quota is not None:
        value += f"; a container's quota of {quota:g} cores"
    yield Fact(GROUP, "cores", value, mark, todo)


def _usable_cores(there: int) -> int:
    """Return the cores of this process's affinity; a system without one lets it use all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there


def _threads_note(usable: int, quota: float | None, threads: str) -> tuple[Mark, str]:
    """Return what to do where more threads compute than there are cores."""
    allowed = usable if quota is None else max(1, min(usable, math.floor(quota)))
    started = int(threads) if threads.isdigit() and int(threads) > 0 else usable
    if started <= allowed:
        return "ok", ""
    todo = f"export OMP_NUM_THREADS={allowed}: PyTorch starts {started} threads otherwise, which "
    return "note", todo + "then wait for each other"


def memory_fact(root: Path = Path("/")) -> Iterator[Fact]:
    """Yield the memory: all, free, and what a container allows."""
    import psutil  # here, so that a missing library is one line, as everywhere in this room

    memory = psutil.virtual_memory()
    free = int(memory.available)
    value = f"{gigabytes(memory.total)}, {gigabytes(free)} free"
    limit = memory_limit(root)
    if limit is not None:
        value += f"; a container's limit of {gigabytes(limit.most)}, {gigabytes(limit.free)} free"
        free = min(free, limit.free)
    if free >= LEAST_MEMORY:
        yield Fact(GROUP, "memory", value)
        return
    todo = "close other programs, or give the container more: the demo needs 1.4 GB, a published "
    yield Fact(GROUP, "memory", value, "note", todo + "generator tens of GB")


def total_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process may ever use."""
    import psutil

    limit = memory_limit(root)
    total = int(psutil.virtual_memory().total)
    return total if limit is None else min(total, limit.most)


def open_files_fact() -> Iterator[Fact]:
    """Yield how many files may be open at once."""
    try:
        import resource
    except ImportError:  # Windows
        yield Fact(GROUP, "open files", "this system has no such limit")
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= LEAST_FILES:
        shown = "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft}"
        yield Fact(GROUP, "open files", shown)
        return
    more = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    yield Fact(GROUP, "open files", f"at most {soft}", "note", f"ulimit -n {more}")


def clock_fact(now: float | None = None, newest: float | None = None) -> Iterator[Fact]:
    """Yield whether the clock stands before the newest file of the package.

    Args:
        now: Seconds since 1970; None asks the clock.
        newest: Time of that file; None looks for it.
    """
    now = time.time() if now is None else now
    newest = _newest_file() if newest is None else newest
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now >= newest - CLOCK_SLACK:
        yield Fact(GROUP, "clock", shown)
        return
    file = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(newest))
    value = f"{shown}, which is before the package's newest file ({file})"
    todo = "set the clock (sudo timedatectl set-ntp true): connections that check certificates "
    yield Fact(GROUP, "clock", value, "note", todo + "and the times of a run are wrong otherwise")


def _newest_file() -> float:
    packages = ("base_model", "rewards", "reward_tuning")
    files = (path for name in packages for path in shipped_folder(name).rglob("*.py"))
    return max(path.stat().st_mtime for path in files)

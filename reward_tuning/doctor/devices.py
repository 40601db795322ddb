"""The devices that PyTorch can use here, and those that it could."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reward_tuning.doctor.facts import Fact, gigabytes

GROUP = "devices"
FP8_FROM = (8, 9)
"""Compute capability with products in 8-bit floating point."""
DRIVER = "proc/driver/nvidia/version"
_NUMBER = re.compile(r"Kernel Module.*?(\d+\.\d+(?:\.\d+)*)")
_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)[a-z]?$")


def nvidia_driver(root: Path = Path("/")) -> str | None:
    """Return the version of the NVIDIA driver, read from /proc; None if none is loaded."""
    try:
        text = (root / DRIVER).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = _NUMBER.search(text)
    return found[1] if found else "of unknown version"


def device_facts(torch: Any, driver: str | None) -> Iterator[Fact]:
    """Yield the build of PyTorch and each device.

    Args:
        torch: The library, or a stand-in.
        driver: Version of the NVIDIA driver; None if there is none.
    """
    cuda, hip = torch.version.cuda, getattr(torch.version, "hip", None)
    build = f"built for CUDA {cuda}" if cuda else f"built for ROCm {hip}" if hip else "for CPUs"
    yield Fact(GROUP, "torch", f"{torch.__version__}, {build}")
    yield Fact(GROUP, "driver", driver or "no NVIDIA driver")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        yield _card(torch, index)
    if not count:
        yield _no_card(cuda or hip, driver)
    mps = getattr(torch.backends, "mps", None)
    if mps is not None and mps.is_available():
        todo = "nothing to do: runs use CUDA or the CPU, and here the CPU"
        yield Fact(GROUP, "mps", "an Apple GPU, which reward-tuning does not use", "note", todo)


def _no_card(build: str | None, driver: str | None) -> Fact:
    value = "none that PyTorch can use; runs use the CPU"
    if driver is None:
        return Fact(GROUP, "cuda", value)
    if build is None:
        todo = "there is an NVIDIA driver: pip install --force-reinstall torch torchvision from an "
        return Fact(GROUP, "cuda", value, "note", todo + "index with CUDA builds")
    todo = f"there is driver {driver}, but PyTorch is built for CUDA {build}: run nvidia-smi, look "
    todo += "at CUDA_VISIBLE_DEVICES, and renew the driver or install an older CUDA build of torch"
    return Fact(GROUP, "cuda", value, "note", todo)


def _card(torch: Any, index: int) -> Fact:
    about = torch.cuda.get_device_properties(index)
    capability = tuple(torch.cuda.get_device_capability(index))
    free, total = torch.cuda.mem_get_info(index)
    shown = ".".join(map(str, capability))
    parts = [
        f"{about.name}, {gigabytes(total)}, {gigabytes(free)} free",
        f"compute capability {shown}",
        f"bfloat16 {_yes(capability >= (8, 0))}",
        f"fp8 products {_yes(capability >= FP8_FROM)}",
    ]
    built = list(torch.cuda.get_arch_list())
    if not torch.version.cuda or _runs_on(built, capability):
        return Fact(GROUP, f"cuda:{index}", "; ".join(parts))
    parts.append(f"this build of PyTorch has no code for it, only for {', '.join(built)}")
    todo = "install a build of torch for this card, or run with --device cpu"
    return Fact(GROUP, f"cuda:{index}", "; ".join(parts), "problem", todo)


def _runs_on(built: list[str], capability: tuple[int, ...]) -> bool:
    """Return whether code for these architectures runs: same major number, or made on loading."""
    for name in built:
        if found := _ARCHITECTURE.match(name):
            code = int(found[2]), int(found[3])
            if code <= capability and (found[1] == "compute" or code[0] == capability[0]):
                return True
    return not built


def _yes(value: bool) -> str:
    return "yes" if value else "no"

"""Devices of machines with and without GPUs, from a stand-in for PyTorch."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reward_tuning.doctor.devices import device_facts, nvidia_driver
from reward_tuning.doctor.facts import Fact
from tests.reward_tuning.sampling.test_cgroups import write

BUILT = ["sm_80", "sm_90", "compute_90"]


def library(
    cards: int = 0,
    cuda: str | None = None,
    capability: tuple[int, int] = (9, 0),
    built: list[str] = BUILT,
    mps: bool = False,
) -> Any:
    """What the doctor asks of torch."""
    return SimpleNamespace(
        __version__="2.15.0",
        version=SimpleNamespace(cuda=cuda, hip=None),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
        cuda=SimpleNamespace(
            is_available=lambda: cards > 0,
            device_count=lambda: cards,
            get_device_properties=lambda i: SimpleNamespace(name=f"Some GPU {i}"),
            get_device_capability=lambda i: capability,
            mem_get_info=lambda i: (100_000_000_000, 150_000_000_000),
            get_arch_list=lambda: built,
        ),
    )


def named(torch: Any, driver: str | None = None) -> dict[str, Fact]:
    return {fact.name: fact for fact in device_facts(torch, driver)}


def test_cards() -> None:
    found = named(library(cards=2, cuda="13.2"), "580.1")
    assert found["torch"].value == "2.15.0, built for CUDA 13.2"
    assert found["driver"].value == "580.1"
    assert found["cuda:0"].mark == found["cuda:1"].mark == "ok"
    assert found["cuda:1"].value == (
        "Some GPU 1, 150 GB, 100 GB free; compute capability 9.0; bfloat16 yes; fp8 products yes"
    )
    assert "cuda" not in found


@pytest.mark.parametrize(
    ("capability", "bfloat16", "fp8"),
    [((7, 5), "no", "no"), ((8, 0), "yes", "no"), ((8, 9), "yes", "yes"), ((12, 0), "yes", "yes")],
)
def test_capabilities(capability: tuple[int, int], bfloat16: str, fp8: str) -> None:
    value = named(library(1, "13.2", capability, [*BUILT, "sm_75"]), "1")["cuda:0"].value
    assert f"bfloat16 {bfloat16}; fp8 products {fp8}" in value


@pytest.mark.parametrize(
    ("capability", "built", "mark"),
    [
        ((8, 6), ["sm_80"], "ok"),  # code of the same major number
        ((9, 0), ["sm_80"], "problem"),
        ((9, 0), ["sm_80", "compute_80"], "ok"),  # compiled when it is loaded
        ((7, 0), BUILT, "problem"),
        ((12, 0), ["sm_120"], "ok"),
        ((10, 0), ["sm_120"], "problem"),
        ((9, 0), ["sm_90a"], "ok"),
    ],
)
def test_a_card_that_the_build_has_no_code_for(
    capability: tuple[int, int], built: list[str], mark: str
) -> None:
    fact = named(library(1, "13.2", capability, built), "1")["cuda:0"]
    assert fact.mark == mark
    assert ("--device cpu" in fact.todo) == (mark == "problem")


def test_a_machine_without_a_gpu() -> None:
    found = named(library())
    assert found["torch"].value == "2.15.0, for CPUs"
    assert {fact.mark for fact in found.values()} == {"ok"}
    assert "CPU" in found["cuda"].value


def test_a_driver_without_a_usable_card() -> None:
    of_cpu = named(library(), "580.1")["cuda"]
    assert of_cpu.mark == "note"
    assert "CUDA builds" in of_cpu.todo
    of_cuda = named(library(cuda="13.2"), "470.1")["cuda"]
    assert of_cuda.mark == "note"
    assert "nvidia-smi" in of_cuda.todo


def test_apples_gpu() -> None:
    assert named(library(mps=True))["mps"].mark == "note"
    assert "mps" not in named(library())


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5\n", "550.54.15"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release\n",
            "580.65.06",
        ),
        ("something else\n", "of unknown version"),
    ],
)
def test_driver(tmp_path: Path, text: str, version: str) -> None:
    assert nvidia_driver(tmp_path) is None
    write(tmp_path / "proc/driver/nvidia/version", text)
    assert nvidia_driver(tmp_path) == version

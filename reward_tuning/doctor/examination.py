"""All facts, in the order in which they are shown; no probe can end the others."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from reward_tuning.doctor import (
    devices,
    disks,
    machine,
    needs,
    programs,
    services,
    versions,
    weights,
)
from reward_tuning.doctor.facts import Fact, gathered
from reward_tuning.evidence.any_recipe import AnyRecipe


def examine(recipe: AnyRecipe | None = None) -> list[Fact]:
    """Look at this machine, and at what a recipe needs of it.

    Nothing is downloaded, sent, loaded or written.

    Args:
        recipe: Resolved; None looks at everything that any recipe may need.
    """
    torch = _torch()
    facts = [*_machine(recipe), *_versions_and_devices(torch)]
    more = _everything(_has_cuda(torch)) if recipe is None else _recipe(recipe, torch)
    return [*facts, *more]


def _has_cuda(torch: Any) -> bool:
    return torch is not None and bool(torch.cuda.is_available())


def _memory(torch: Any) -> needs.MemoryHere:
    device = int(torch.cuda.mem_get_info()[1]) if _has_cuda(torch) else None
    return needs.MemoryHere(machine.total_memory(), device)


def _torch() -> Any:
    """Import PyTorch; None if that fails, which the facts of the devices tell."""
    try:
        return importlib.import_module("torch")
    except Exception:  # a damaged installation raises anything
        return None


def _machine(recipe: AnyRecipe | None) -> Iterator[Fact]:
    group = machine.GROUP
    yield from gathered(group, "system", machine.system_fact)
    yield from gathered(group, "processor", machine.processor_facts)
    yield from gathered(group, "cores", machine.cores_fact)
    yield from gathered(group, "memory", machine.memory_fact)
    yield from gathered(group, "open files", machine.open_files_fact)
    yield from gathered(group, "clock", machine.clock_fact)
    yield from gathered(disks.GROUP, "disks", lambda: disks.disk_facts(needs.places(recipe)))
    yield from gathered(disks.GROUP, "shared memory", disks.shared_memory_fact)


def _versions_and_devices(torch: Any) -> Iterator[Fact]:
    yield from gathered(versions.GROUP, "versions", versions.version_facts)
    found = partial(_devices, torch)
    yield from gathered(devices.GROUP, "devices", found, failure="problem")


def _devices(torch: Any) -> Iterator[Fact]:
    found = importlib.import_module("torch") if torch is None else torch  # raises, with the reason
    yield from devices.device_facts(found, devices.nvidia_driver())


def _everything(cuda: bool) -> Iterator[Fact]:
    yield from _programs()
    yield from gathered(programs.GROUP, "C++ compiler", programs.compiler_fact)
    yield from gathered(programs.GROUP, "triton", lambda: programs.triton_fact(cuda))
    yield from gathered(programs.GROUP, "bitsandbytes", programs.bitsandbytes_fact)
    group = weights.GROUP
    yield from gathered(group, "shipped weights", weights.shipped_facts, failure="problem")
    yield from gathered(group, "published generators", weights.published_generator_facts)
    yield from gathered(group, "published judges", weights.published_judge_facts)
    yield from gathered(services.HUB, "hub", services.hub_facts)
    yield from gathered(services.TRACKERS, "trackers", services.tracker_facts)


def _programs() -> Iterator[Fact]:
    yield from gathered(programs.GROUP, "ffmpeg", programs.ffmpeg_fact, failure="problem")
    yield from gathered(programs.GROUP, "browser", programs.browser_fact)


def _recipe(recipe: AnyRecipe, torch: Any) -> Iterator[Fact]:
    cuda = _has_cuda(torch)
    yield from _programs()
    for name, probe in (
        ("generator", lambda: needs.generator_facts(recipe)),
        ("judges", lambda: needs.judge_facts(recipe)),
        ("trackers", lambda: needs.tracker_facts(recipe)),
        ("libraries", lambda: needs.library_facts(recipe, cuda=cuda)),
        ("memory", lambda: needs.memory_facts(recipe, _memory(torch))),
    ):
        yield from gathered(needs.GROUP, name, probe, failure="problem")


def problems(facts: Sequence[Fact]) -> list[Fact]:
    """Return the facts that are problems."""
    return [fact for fact in facts if fact.mark == "problem"]

"""Free disk where something is written, against what will be written there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reward_tuning.doctor.facts import Fact, gigabytes

GROUP = "disk"
LEAST = 1_000_000_000
"""Free bytes below which there is a note, where nothing is known of what is needed."""
LEAST_SHARED = 1_000_000_000
"""Bytes of /dev/shm below which there is a note: containers often have 64 MB."""


@dataclass(frozen=True)
class Place:
    """A folder that is written to.

    Attributes:
        name: Such as `output folder`.
        folder: The folder, which need not exist yet.
        change: How to choose another one.
        needed: Bytes that a recipe writes there; 0 where that is not known.
        why: What those are.
    """

    name: str
    folder: Path
    change: str
    needed: int = 0
    why: str = ""


def disk_facts(places: Sequence[Place]) -> Iterator[Fact]:
    """Yield a fact for each place; what several need of one disk is added up."""
    needs: dict[int, int] = {}
    for place in places:
        device = _existing(place.folder).stat().st_dev
        needs[device] = needs.get(device, 0) + place.needed
    for place in places:
        existing = _existing(place.folder)
        yield _disk_fact(place, existing, needs[existing.stat().st_dev])


def _disk_fact(place: Place, existing: Path, needed: int) -> Fact:
    free = shutil.disk_usage(existing).free
    value = f"{gigabytes(free)} free at {place.folder}"
    if place.needed:
        value += f"; needs about {gigabytes(place.needed)}: {place.why}"
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        what = "cannot be written" if existing.is_dir() else "is a file"
        todo = f"{place.change}, or make {existing} writable"
        return Fact(GROUP, place.name, f"{existing} {what}", "problem", todo)
    if place.needed and free < needed:
        if needed > place.needed:
            value += f"; all that goes to this disk is about {gigabytes(needed)}"
        todo = f"free {gigabytes(needed - free)} there, or {place.change}"
        return Fact(GROUP, place.name, value, "problem", todo)
    if free < LEAST:
        todo = f"free some space there, or {place.change}"
        return Fact(GROUP, place.name, value, "note", todo)
    return Fact(GROUP, place.name, value)


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest folder above it that exists."""
    folder = folder.expanduser().absolute()
    return next(path for path in (folder, *folder.parents) if _exists(path))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that may not be looked into
        return False


def shared_memory_fact(folder: Path = Path("/dev/shm")) -> Iterator[Fact]:
    """Yield the size of the shared memory, which several processes of one run exchange data in."""
    if not folder.is_dir():
        yield Fact(GROUP, "shared memory", f"no {folder} on this system")
        return
    usage = shutil.disk_usage(folder)
    value = f"{gigabytes(usage.total)} at {folder}, {gigabytes(usage.free)} free"
    if usage.free >= LEAST_SHARED:
        yield Fact(GROUP, "shared memory", value)
        return
    todo = "for several processes (torchrun) start the container with more: docker run "
    yield Fact(GROUP, "shared memory", value, "note", todo + "--shm-size=8g; one needs none")

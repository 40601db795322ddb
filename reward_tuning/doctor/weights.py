"""The shipped and published weights: on this disk, or missing with size and command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from base_model.files.published_generators import SIZES, published_generators
from base_model.files.shipped import WEIGHTS, shipped_checkpoints
from reward_tuning.doctor.facts import Fact, gigabytes
from reward_tuning.files.safetensors_header import is_whole
from reward_tuning.judges.listing import PARTS
from reward_tuning.sampling.generator_parts import to_download
from reward_tuning.schema.locate import shipped_folder, shipped_judges
from reward_tuning.schema.sections import GeneratorSection

if TYPE_CHECKING:
    from rewards.core.locate import HubFile
    from rewards.core.published import PublishedFile

GROUP = "weights"
REINSTALL = (
    "pip install --force-reinstall --no-deps reward-tuning, or check the repository out again"
)


def shipped_facts() -> Iterator[Fact]:
    """Yield the generators and judges of the package, and those of their files that are damaged."""
    judges = shipped_folder("rewards", "weights")
    for name, names, folder in (
        ("shipped generators", shipped_checkpoints(), WEIGHTS),
        ("shipped judges", shipped_judges(), judges),
    ):
        files = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
        damaged = [str(file.relative_to(folder)) for file in files if not is_whole(file)]
        if damaged:
            value = f"cut short or no weights: {', '.join(damaged)}"
            yield Fact(GROUP, name, value, "problem", REINSTALL)
        elif not names:
            yield Fact(GROUP, name, f"none in {folder}", "problem", REINSTALL)
        else:
            size = gigabytes(sum(file.stat().st_size for file in files))
            yield Fact(GROUP, name, f"{', '.join(names)} ({size})")


def published_generator_facts() -> Iterator[Fact]:
    """Yield the published generators of each size: which of them are in the hub's cache."""
    for size in SIZES:
        names = published_generators(size)
        here = [name for name in names if not to_download(GeneratorSection(checkpoint=name))]
        group, name = GROUP, f"EasyAnimateV5.1 {size.name.upper()}"
        if here:
            yield Fact(group, name, f"on this disk: {', '.join(here)}")
            continue
        value = f"not on this disk, about {gigabytes(size.bytes)}"
        todo = "a run downloads what its recipe names; `reward-tuning doctor RECIPE` prints it"
        yield Fact(group, name, value, "note", todo)


def published_judge_facts() -> Iterator[Fact]:
    """Yield each published judge: its place, or its size and the command that fetches it."""
    from rewards.core.locate import HubFile  # imports torch through its package
    from rewards.core.published import PUBLISHED

    for entry in PUBLISHED:
        place = judge_place(entry.name)
        if place is not None:
            yield Fact(GROUP, entry.name, f"at {place}")
            continue
        hub = HubFile.of(entry.name)
        assert hub is not None
        use = PARTS.get(entry.kind) or f"judges of kind {entry.kind}"
        value = f"not on this disk, {size_of(entry)}, for {use}"
        yield Fact(GROUP, entry.name, value, "note", fetching(hub))


def size_of(entry: PublishedFile | None) -> str:
    """Return the size of a published file in words."""
    size = None if entry is None else entry.size or entry.tensors
    return "size not recorded" if size is None else gigabytes(size)


def fetching(file: HubFile) -> str:
    """Return how a judge's file gets here, and into the recipe where that is not by its name."""
    entry = file.published
    if entry is None or entry.from_hub or entry.module is not None:
        return file.fetch
    return f"{file.fetch}, then name the file's path as the checkpoint"


def judge_place(name: str) -> Path | None:
    """Return the file or folder of a judge's name in a recipe; None if it is not on this disk."""
    from rewards.core.locate import resolve_file
    from rewards.core.published import published
    from rewards.errors import RewardError
    from rewards.qwen.files import resolve_folder

    entry = published(name)
    find = resolve_file if entry is None or entry.file else resolve_folder
    try:
        return find(name)
    except RewardError:
        return None

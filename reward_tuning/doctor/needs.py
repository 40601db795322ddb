"""What a recipe needs of this machine: its generator, judges, trackers, libraries and disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from base_model.errors import GeneratorError
from base_model.files.cache_folder import cache_folder
from base_model.files.published_generators import published_size
from base_model.memory.modes import MODES
from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.doctor.disks import Place
from reward_tuning.doctor.facts import Fact, gigabytes
from reward_tuning.doctor.programs import bitsandbytes_fact, compiler_fact, triton_fact
from reward_tuning.doctor.sizes import resident_bytes, trained_numbers, written_bytes
from reward_tuning.doctor.weights import fetching, judge_place, size_of
from reward_tuning.errors import TuningError
from reward_tuning.evidence.any_recipe import AnyRecipe
from reward_tuning.files.masked_text import masked_addresses
from reward_tuning.runs.tracker_packages import require_trackers
from reward_tuning.sampling.generator_parts import to_download
from reward_tuning.schema.judge_parts import JudgeSection
from reward_tuning.schema.recipe import Recipe

if TYPE_CHECKING:
    from base_model.memory.quantise import Quantise

GROUP = "recipe"
EIGHT_BIT = "adamw-8bit"
LARGE_ON_CPU = 1_000_000_000
"""Numbers of the transformer from which on a run on a CPU is a mistake."""


class MemoryHere(NamedTuple):
    """Bytes of memory that a run may have here.

    Attributes:
        machine: Of the machine, or of its container.
        device: Of the GPU that a run takes; None if there is none.
    """

    machine: int
    device: int | None


def judges_of(recipe: AnyRecipe) -> list[JudgeSection]:
    """Return the judges of a recipe, those of its evaluation included."""
    if isinstance(recipe, Recipe):
        return [*recipe.rewards, *recipe.evaluation.held_out_rewards]
    return list(recipe.evaluation.held_out_rewards) if isinstance(recipe, DistilRecipe) else []


def generator_facts(recipe: AnyRecipe) -> Iterator[Fact]:
    """Yield the generator: on this disk, or what a run downloads of it."""
    from huggingface_hub import constants

    try:
        missing = to_download(recipe.generator)
    except GeneratorError as error:
        todo = "correct generator.checkpoint; reward-tuning ls lists the shipped ones"
        yield Fact(GROUP, "generator", str(error), "problem", todo)
        return
    if not missing:
        yield Fact(GROUP, "generator", f"{recipe.generator.checkpoint}, on this disk")
    for name in missing:
        size = published_size(name)
        about = f"about {gigabytes(size.bytes)}" if size else "of unknown size"
        value = f"{name} is not on this disk, {about}"
        command = f"hf download {_hub_arguments(name)}"
        if constants.HF_HUB_OFFLINE:
            todo = f"unset HF_HUB_OFFLINE and {command}"
            yield Fact(GROUP, "generator", value, "problem", todo)
        else:
            todo = f"{command}, or leave it to the run, which downloads it when it starts"
            yield Fact(GROUP, "generator", value, "note", todo)


def memory_facts(recipe: AnyRecipe, here: MemoryHere) -> Iterator[Fact]:
    """Yield whether the transformer's weights alone fit where they are kept.

    Args:
        recipe: Resolved.
        here: The memory of this machine.
    """
    mode = MODES[recipe.generator.memory]
    needed = resident_bytes(recipe.generator)
    if needed is None or (here.device is not None and mode.blocks_shared):
        return
    rest = here.device is not None and mode.blocks_rest
    total = here.device if here.device is not None and not rest else here.machine
    whose = "this machine's" if here.device is None or rest else "the GPU's"
    state = ", which rest there" if rest else " alone"
    value = (
        f"{gigabytes(needed)} of {whose} {gigabytes(total)} for the transformer's weights{state}"
    )
    if needed > total:
        larger = "a machine" if here.device is None or rest else "a GPU"
        ways = _smaller_weights(recipe, gpu=here.device is not None)
        todo = ", or ".join([*ways, f"{larger} with more memory"])
        yield Fact(GROUP, "memory", value, "problem", todo)
    elif here.device is None and (trained_numbers(recipe.generator, None) or 0) > LARGE_ON_CPU:
        todo = "runs use the CPU here, which is far too slow for a generator of this size: use a "
        todo += "machine with a GPU; `reward-tuning estimate RECIPE --gpu 24GB` tells what fits"
        yield Fact(GROUP, "memory", value, "note", todo)
    else:
        yield Fact(GROUP, "memory", value)


def _smaller_weights(recipe: AnyRecipe, *, gpu: bool) -> Iterator[str]:
    """Yield the changes that a recipe allows and that leave fewer bytes of weights there."""
    generator = recipe.generator
    movable = recipe.lora is not None and not getattr(recipe.train, "compile", False)
    if movable and gpu and not MODES[generator.memory].blocks_rest:
        yield "generator.memory=block-offload"
    if movable and generator.quantise != "nf4":
        yield "generator.quantise=nf4"
    if recipe.lora is not None and generator.quantise is None and generator.dtype == "float32":
        yield "generator.dtype=bfloat16"


def _hub_arguments(hub_id: str) -> str:
    name, _, revision = hub_id.partition("@")
    return f"{name} --revision {revision}" if revision else name


def judge_facts(recipe: AnyRecipe, environment: Mapping[str, str] = os.environ) -> Iterator[Fact]:
    """Yield each judge: its files with their places or their commands, its address, its key."""
    from rewards.core.locate import HubFile

    for judge in judges_of(recipe):
        name = f"judge {judge.label}"
        for file in (judge.files | judge.folders).values():
            place = judge_place(file)
            if place is not None:
                yield Fact(GROUP, name, f"{file}, at {place}")
                continue
            hub = HubFile.of(file)
            value = f"{file} is not on this disk, {size_of(hub.published if hub else None)}"
            command = fetching(hub) if hub is not None else f"hf download {file}"
            yield Fact(GROUP, name, value, "problem", command)
        yield from _outside_facts(judge, name, environment)
        if not (judge.files or judge.folders or _is_outside(judge)):
            what = "the generator's text encoder" if judge.of_generator else "a formula, no file"
            yield Fact(GROUP, name, what)


def _is_outside(judge: JudgeSection) -> bool:
    return hasattr(judge, "url") or hasattr(judge, "command")


def _outside_facts(
    judge: JudgeSection, name: str, environment: Mapping[str, str]
) -> Iterator[Fact]:
    """Yield where a judge outside this process is, and whether its key is set."""
    if hasattr(judge, "command"):
        yield Fact(GROUP, name, f"starts {' '.join(judge.command)}")
    if hasattr(judge, "url"):
        yield Fact(GROUP, name, f"sends clips to {masked_addresses(judge.url)}")
    key = getattr(judge, "key_env", None)
    if key is not None and not environment.get(key):
        value = f"{key} is not set, which holds its key"
        yield Fact(GROUP, name, value, "problem", f"export {key}=...")


def tracker_facts(recipe: AnyRecipe) -> Iterator[Fact]:
    """Yield whether each tracker of a recipe can be started."""
    for name in recipe.tracking:
        try:
            require_trackers([name])
        except TuningError as error:
            text, _, todo = str(error).partition("; ")
            yield Fact(GROUP, f"tracker {name}", text, "problem", todo)
        else:
            yield Fact(GROUP, f"tracker {name}", "can be used")


def library_facts(recipe: AnyRecipe, *, cuda: bool) -> Iterator[Fact]:
    """Yield what compilation, quantised weights and the optimiser of a recipe need.

    Args:
        recipe: Resolved.
        cuda: Whether there is a GPU.
    """
    if getattr(recipe.train, "compile", False):
        found = triton_fact(True, missing="problem") if cuda else compiler_fact(missing="problem")
        yield from found
    if recipe.train.optimiser.kind == EIGHT_BIT:
        yield from bitsandbytes_fact(missing="problem")
    if recipe.generator.quantise is not None:
        yield _quantise_fact(recipe.generator.quantise, "cuda" if cuda else "cpu")


def _quantise_fact(kind: Quantise, device: str) -> Fact:
    """Return whether a small weight can be packed and used so on a device."""
    from base_model.memory import quantise  # imports torch

    try:
        quantise.require(kind, device)
    except GeneratorError as error:
        text, _, todo = str(error).partition(". ")
        return Fact(GROUP, "quantise", text, "problem", todo.rstrip("."))
    return Fact(GROUP, "quantise", f"{kind} works on {device}")


def places(recipe: AnyRecipe | None) -> list[Place]:
    """Return the folders that are written, with what a recipe writes there.

    Args:
        recipe: Resolved; None for any recipe.
    """
    from huggingface_hub import constants

    output, written, downloaded, why = Path("runs"), 0, 0, ""
    if recipe is not None:
        output, written = Path(recipe.output), written_bytes(recipe) or 0
        downloaded, why = _downloads(recipe)
    return [
        Place(
            "output folder",
            output,
            "choose another folder: output=FOLDER",
            written,
            "checkpoints and the LoRA, without clips",
        ),
        Place("hub cache", Path(constants.HF_HUB_CACHE), "set HF_HOME", downloaded, why),
        Place("own cache", cache_folder(""), "set REWARD_TUNING_CACHE"),
        Place("temporary folder", Path(tempfile.gettempdir()), "set TMPDIR"),
    ]


def _downloads(recipe: AnyRecipe) -> tuple[int, str]:
    """Return the bytes that are still to be fetched, as far as they are recorded, and of what."""
    from rewards.core.published import published

    found: dict[str, int] = {}
    for name in to_download(recipe.generator):
        if size := published_size(name):
            found[name] = size.bytes
    for judge in judges_of(recipe):
        for file in (judge.files | judge.folders).values():
            entry = published(file.partition("@")[0])
            if entry is not None and entry.from_hub and judge_place(file) is None:
                found[file] = entry.size or entry.tensors or 0
    return sum(found.values()), ", ".join(found)

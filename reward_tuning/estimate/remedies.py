"""What makes a recipe fit into a smaller memory, each change with its price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from base_model.memory.modes import MODES
from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.estimate.estimate import Estimate, estimate
from reward_tuning.evidence.any_recipe import AnyRecipe
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.schema.recipe import Recipe

LEAST_SIDE = 128
"""Height and width below which no smaller clips are proposed."""


@dataclass(frozen=True)
class Change:
    """One change of a recipe.

    Attributes:
        overrides: As the command line takes them.
        price: What it costs.
        updates: Section to the values that change in it; "" for whole sections.
        again: Whether what the device holds must be followed anew; without, only the place and
            the packing of weights change.
    """

    overrides: str
    price: str
    updates: Mapping[str, Mapping[str, Any]]
    again: bool = True


@dataclass(frozen=True)
class Step:
    """A change on top of those before it.

    Attributes:
        change: The change.
        phase: Phase that needs most with it.
        bytes: What that phase needs.
    """

    change: Change
    phase: str
    bytes: float


def steps_to_fit(
    estimated: Estimate, room: float, *, gpus: int = 1, progress: ProgressFn = silent
) -> list[Step]:
    """Return changes, each on top of the earlier ones, until the run fits or none is left.

    Changes that keep every number of the run come first. One that frees nothing is left out, and so
    is one that later ones make unnecessary: each is tried without, those first that need no run of
    their own.

    Args:
        estimated: Of the recipe as it is.
        room: Bytes that tensors can have.
        gpus: GPUs that share the run; 0 for the CPU.
        progress: Called between the parts of the work.
    """
    with_changes = _WithChanges(estimated, gpus, progress)
    made: list[Change] = []
    now = estimated
    tried: set[str] = set()
    while now.peak[1] > room:
        change = next(
            (one for one in changes(now.recipe, gpus=gpus) if one.overrides not in tried), None
        )
        if change is None:
            break
        tried.add(change.overrides)
        progress(ProgressEvent("estimating", phase=change.overrides))
        after = with_changes([*made, change])
        if after.peak[1] < 0.995 * now.peak[1]:
            now = after
            made.append(change)
    if now.peak[1] <= room:
        made = [one for number, one in enumerate(made) if not _overwritten(one, made[number + 1 :])]
        for change in sorted(made[-2::-1], key=lambda one: one.again):
            rest = [one for one in made if one is not change]
            if not _can_run(_with(estimated.recipe, rest)):
                continue
            progress(ProgressEvent("estimating", phase=f"without {change.overrides}"))
            if with_changes(rest).peak[1] <= room:
                made = rest
    steps = []
    for number, change in enumerate(made, 1):
        progress(ProgressEvent("estimating", phase=change.overrides))
        steps.append(Step(change, *with_changes(made[:number]).peak))
    return steps


def _overwritten(change: Change, later: Sequence[Change]) -> bool:
    """Return whether later changes set all that a change sets."""
    keys = {(section, key) for one in later for section, of in one.updates.items() for key in of}
    return all((section, key) in keys for section, of in change.updates.items() for key in of)


def _can_run(recipe: AnyRecipe) -> bool:
    """Return whether a recipe that lacks one of several changes is not refused."""
    generator = recipe.generator
    return not (MODES[generator.memory].blocks_shared and generator.quantise is not None)


class _WithChanges:
    """Estimates of a recipe with changes; what the device holds is followed once for each kind.

    Args:
        estimated: Of the recipe as it is.
        gpus: GPUs that share the run; 0 for the CPU.
        progress: Called between the parts of the work.
    """

    def __init__(self, estimated: Estimate, gpus: int, progress: ProgressFn) -> None:
        self._recipe, self._gpus, self._progress = estimated.recipe, gpus, progress
        self._followed: dict[tuple[str, ...], Estimate] = {(): estimated}

    def __call__(self, made: Sequence[Change]) -> Estimate:
        """Return the estimate with these changes, each on top of the earlier ones."""
        again = [one for one in made if one.again]
        key = tuple(one.overrides for one in again)
        if key not in self._followed:
            self._followed[key] = estimate(
                _with(self._recipe, again), gpus=self._gpus, time=False, progress=self._progress
            )
        return self._followed[key].stored_as(_with(self._recipe, made), gpus=self._gpus)


def _with(recipe: AnyRecipe, made: Sequence[Change]) -> AnyRecipe:
    for change in made:
        recipe = _applied(recipe, change)
    return recipe


def changes(recipe: AnyRecipe, *, gpus: int) -> Iterator[Change]:
    """Yield the changes that a recipe has not made yet, the cheapest first."""
    train, generator, lora = recipe.train, recipe.generator, recipe.lora
    mode, frozen = MODES[generator.memory], lora is not None
    if gpus and generator.memory == "resident":
        price = "same numbers; decoder and judges are copied to the GPU for their use"
        yield _of("generator", "memory", "offload", price, again=False)
    packs = generator.quantise is None and frozen
    if gpus > 1 and generator.memory in ("resident", "offload") and packs:
        price = "same numbers; every pass gathers all blocks from the other GPUs"
        yield _of("generator", "memory", "sharded", price, again=False)
    if not train.gradient_checkpointing and not mode.blocks_rest:
        price = "same numbers; the blocks of each gradient run forward once more"
        yield _of("train", "gradient_checkpointing", True, price)
    checkpoints = getattr(train, "decoder_checkpointing", True)
    if not checkpoints:
        price = "same numbers; the decoder runs forward once more"
        yield _of("train", "decoder_checkpointing", True, price)
    elif _decodes_with_gradient(recipe) and checkpoints != "segments":
        price = "same numbers; up to two thirds of the decoder run forward once more"
        yield _of("train", "decoder_checkpointing", "segments", price)
    if gpus and frozen and not mode.blocks_rest:
        price = "same numbers; all blocks rest in the CPU's memory, and every pass copies them"
        yield _of("generator", "memory", "block-offload", price, again=False)
    if getattr(train, "keep_graphs", 0):
        price = "same numbers; the kept steps run forward once more"
        yield _of("train", "keep_graphs", 0, price)
    yield from _smaller_batch(recipe)
    if packs and not mode.blocks_shared:
        kind = "fp8"
        price = "weights of 8 bits: unpacked for every product, gradients within a few percent"
        yield _of("generator", "quantise", kind, price, again=False)
    if isinstance(recipe, Recipe):
        yield from _fewer_frames(recipe)
    if generator.quantise not in (None, "nf4"):
        price = "weights of 4.5 bits: gradients differ more"
        yield _of("generator", "quantise", "nf4", price, again=False)
    if lora is not None and lora.rank > 8:
        price = "a smaller adapter learns less"
        yield _of("lora", "rank", lora.rank // 2, price)
    yield from _smaller_clips(recipe)


def _decodes_with_gradient(recipe: AnyRecipe) -> bool:
    """Return whether a gradient runs back through the VAE."""
    return isinstance(recipe, Recipe) and (
        recipe.train.decoder == "vae" or recipe.train.true_decoder_every is not None
    )


def _smaller_batch(recipe: AnyRecipe) -> Iterator[Change]:
    train = recipe.train
    if train.batch_size > 1 and getattr(train, "clips_per_prompt", 1) == 1:
        batches = train.gradient_accumulation * train.batch_size
        drawn = ", and every clip draws its plan" if isinstance(recipe, Recipe) else ""
        yield Change(
            f"train.batch_size=1 train.gradient_accumulation={batches}",
            f"as many clips a step, one at a time: slower on a GPU{drawn}",
            {"train": {"batch_size": 1, "gradient_accumulation": batches}},
        )


def _smaller_clips(recipe: AnyRecipe) -> Iterator[Change]:
    """Yield smaller clips; of a fine-tuning, without its largest sides, or else smaller ones."""
    price = "smaller clips: trained for another size than before"
    if isinstance(recipe, FinetuneRecipe):
        sides = recipe.data.sides
        largest = max(sides)
        fewer = tuple(side for side in sides if side < largest) or (largest * 3 // 4 // 32 * 32,)
        if max(fewer) >= LEAST_SIDE:
            shown = f"[{','.join(map(str, fewer))}]"
            yield Change(f"data.sides={shown}", price, {"data": {"sides": fewer}})
        return
    name = "student" if isinstance(recipe, DistilRecipe) else "sampling"
    section = getattr(recipe, name)
    height, width = section.height * 3 // 4 // 16 * 16, section.width * 3 // 4 // 16 * 16
    if min(height, width) >= LEAST_SIDE:
        yield Change(
            f"{name}.height={height} {name}.width={width}",
            price,
            {name: {"height": height, "width": width}},
        )


def _fewer_frames(recipe: Recipe) -> Iterator[Change]:
    """Yield half the judged frames, where a judge has a number of them."""
    counts: dict[int, int] = {}
    for number, section in enumerate(recipe.rewards):
        frames = getattr(section, "frames", None)
        if isinstance(frames, int) and frames > 1:
            counts[number] = frames // 2
    if counts:
        rewards = [
            section.model_copy(update={"frames": counts[number]}) if number in counts else section
            for number, section in enumerate(recipe.rewards)
        ]
        overrides = " ".join(f"rewards.{number}.frames={n}" for number, n in counts.items())
        yield Change(overrides, "a noisier reward: fewer frames judged", {"": {"rewards": rewards}})


def _of(section: str, key: str, value: Any, price: str, *, again: bool = True) -> Change:
    shown = str(value).lower() if isinstance(value, bool) else value
    return Change(f"{section}.{key}={shown}", price, {section: {key: value}}, again)


def _applied(recipe: AnyRecipe, change: Change) -> AnyRecipe:
    sections = {
        name: getattr(recipe, name).model_copy(update=dict(values))
        for name, values in change.updates.items()
        if name
    }
    return recipe.model_copy(update=sections | dict(change.updates.get("", {})))

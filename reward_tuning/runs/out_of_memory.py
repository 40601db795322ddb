"""Training that runs out of memory: which phase it was, and what its recipe can still change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from reward_tuning.errors import TuningError
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.runs.resumable import rounding_changes
from reward_tuning.runs.undone import UndoneStep

NAMES = ("out of memory", "allocate memory", "ALLOC_FAILED")
"""What the messages of CUDA, of the CPU's allocator and of cuBLAS say."""
MEASURED = ("samples", "guards", "evaluation")
"""What the names of stages begin with in which clips are drawn and measured, without gradient."""
SAME, ROUNDED, OTHER = "same", "rounded", "other"


@dataclass(frozen=True)
class Change:
    """A change of a recipe that needs less memory.

    Attributes:
        override: `key.sub=value`, for the command line; several are separated by spaces.
        numbers: `same`: no bit changes; `rounded`: the same to rounding; `other`: another run.
    """

    override: str
    numbers: str


class OutOfMemory(TuningError):  # noqa: N818 - what has happened
    """A training has ended for want of memory; with less it can go on.

    Attributes:
        gradient: It ended where a gradient is computed, or where that is not known; else in sample
            clips, guards or an evaluation.
    """

    def __init__(self, text: str, *, gradient: bool = True) -> None:
        super().__init__(text)
        self.gradient = gradient


class SharedOutOfMemory(OutOfMemory):
    """Every process has ended so at the same point, whichever of them ran out of memory."""


class StepOutOfMemory(UndoneStep):
    """A step has ended for want of memory and has changed nothing; all processes raise it."""


class PhaseOutOfMemory(Exception):  # noqa: N818 - ends the phases of one process, inside its step
    """A phase of a step has failed for want of memory.

    Attributes:
        phase: Name of the phase.
    """

    def __init__(self, phase: str, error: BaseException) -> None:
        super().__init__(first_line(error))
        self.phase = phase


class MeasuringOutOfMemory(Exception):  # noqa: N818 - ends the drawing and measuring of clips
    """Memory has run out while clips were drawn or measured, which has changed nothing.

    Attributes:
        shared: Every process raises it at the same point.
    """

    def __init__(self, text: str, *, shared: bool = False) -> None:
        super().__init__(text)
        self.shared = shared


@contextmanager
def measuring(accelerator: Accelerator | None = None) -> Iterator[None]:
    """Name a failed allocation of the body, which draws or measures clips and changes no state.

    Args:
        accelerator: Processes that share the work: each of them enters and leaves the context, and
            exchanges nothing within it. None for work of this process alone.

    Raises:
        MeasuringOutOfMemory: Memory ran out, in this process or in another that shares the work.
    """
    failed: Exception | None = None
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        failed = error
    if accelerator is None or accelerator.num_processes == 1:
        if failed is not None:
            raise MeasuringOutOfMemory(first_line(failed)) from failed
        return
    told: list[str | None] = gather_object([None if failed is None else first_line(failed)])
    for process, text in enumerate(told):
        if text is not None:
            whose = f"process {process} of {len(told)}: {text}"
            raise MeasuringOutOfMemory(whose, shared=True) from failed


def ran_out(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a device or in the machine."""
    named = PhaseOutOfMemory | MeasuringOutOfMemory
    if isinstance(error, torch.OutOfMemoryError | MemoryError | named):
        return True
    return isinstance(error, RuntimeError) and any(name in str(error) for name in NAMES)


def first_line(error: BaseException) -> str:
    """Return the first line of the allocator's message, shortened."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def memory_changes(recipe: Mapping[str, Any], *, cuda: bool, gradient: bool = True) -> list[Change]:
    """List what a recipe has not yet changed for less memory, the cheapest first.

    Args:
        recipe: Values of a recipe, of any verb.
        cuda: The run uses a GPU; on the CPU, moving weights there frees nothing.
        gradient: Memory runs out where a gradient is computed; else where clips are drawn and
            measured, whose peak is lowered by less.
    """
    found = _repeated(recipe) if gradient else []
    if cuda:
        found += _moved(recipe, gradient=gradient)
    found += _smaller_steps(recipe) if gradient else _smaller_evaluations(recipe)
    generator = recipe["generator"]
    if generator.get("quantise", "none") is None and isinstance(recipe.get("lora"), Mapping):
        found.append(Change("generator.quantise=int8", OTHER))
    return found


def _repeated(recipe: Mapping[str, Any]) -> list[Change]:
    """Return the changes that compute again for the gradient what is kept so far."""
    train, found = recipe["train"], []
    if train.get("keep_graphs", 0) != 0:
        budget = " train.keep_graphs_memory=1.0" if train["keep_graphs"] == "auto" else ""
        found.append(Change(f"train.keep_graphs=0{budget}", ROUNDED))
    decoder = train.get("decoder_checkpointing")
    if decoder is False:
        found.append(Change("train.decoder_checkpointing=true", SAME))
    elif decoder is True and _shows_clips(recipe) and _vae_has_gradient(train):
        found.append(Change("train.decoder_checkpointing=segments", SAME))
    if not train["gradient_checkpointing"]:
        found.append(Change("train.gradient_checkpointing=true", SAME))
    return found


def _moved(recipe: Mapping[str, Any], *, gradient: bool) -> list[Change]:
    """Return the changes that move weights and activations off the GPU while they rest."""
    train, memory, found = recipe["train"], recipe["generator"]["memory"], []
    if memory == "resident":
        found.append(Change("generator.memory=offload", SAME))
    adapter_only = isinstance(recipe.get("lora"), Mapping) and not train.get("compile")
    if memory in ("resident", "offload") and adapter_only:
        rounds = rounding_changes(recipe, "generator.memory")
        found.append(Change("generator.memory=block-offload", ROUNDED if rounds else SAME))
    offloads = train.get("offload_activations") is False and train["gradient_checkpointing"]
    if gradient and offloads:
        found.append(Change("train.offload_activations=true", SAME))
    return found


def _smaller_steps(recipe: Mapping[str, Any]) -> list[Change]:
    """Return the changes of what a step computes."""
    train, found = recipe["train"], []
    if _shows_clips(recipe) and train.get("decoded") == "all":
        found.append(Change("train.decoded=random-window", OTHER))
    if _shows_clips(recipe) and train.get("decoder") == "vae":
        found.append(Change("train.decoder=small", OTHER))
    if train["batch_size"] > 1:
        found.append(Change(f"train.batch_size={train['batch_size'] // 2}", OTHER))
    return found


def _smaller_evaluations(recipe: Mapping[str, Any]) -> list[Change]:
    """Return the changes of how many clips are drawn at a time for samples and measures."""
    evaluation = recipe.get("evaluation") or {}
    if "batch_size" not in evaluation:
        return []
    size = evaluation["batch_size"] or recipe["train"]["batch_size"]
    return [Change(f"evaluation.batch_size={size // 2}", OTHER)] if size > 1 else []


def _vae_has_gradient(train: Mapping[str, Any]) -> bool:
    """Return whether clips are decoded with gradient by the VAE, at least in some steps."""
    return train["decoder"] == "vae" or train.get("true_decoder_every") is not None


def _shows_clips(recipe: Mapping[str, Any]) -> bool:
    """Return whether a gradient runs back through decoded clips."""
    only_scores = recipe.get("method", {}).get("kind") in ("awm", "nft")
    return not only_scores and all(one["kind"] != "latent" for one in recipe.get("rewards", []))


def next_change(recipe: Mapping[str, Any], *, cuda: bool, gradient: bool = True) -> Change | None:
    """Return the next change with which a run may go on; None where all have been made.

    The arguments are those of `memory_changes`.
    """
    found = memory_changes(recipe, cuda=cuda, gradient=gradient)
    return next((change for change in found if change.numbers != OTHER), None)


def message(
    recipe: Mapping[str, Any], root: Path, where: str, *, cuda: bool, gradient: bool = True
) -> str:
    """Write the error: where memory ran out, what the recipe can change, and how to go on.

    Args:
        recipe: Values of the recipe.
        root: The run folder.
        where: What ran out of memory, a sentence without its full stop.
        cuda: The run uses a GPU.
        gradient: It did where a gradient is computed.
    """
    found = memory_changes(recipe, cuda=cuda, gradient=gradient)
    keeps = [change.override for change in found if change.numbers != OTHER]
    others = [change.override for change in found if change.numbers == OTHER]
    lines = [where]
    if keeps:
        lines += [
            f"less memory for the same run: {', '.join(keeps)}",
            f"the next of them: reward-tuning resume {root} --retry-with-less-memory",
        ]
    else:
        lines.append("less memory for the same run: the recipe has nothing left to change")
    if others:
        lines.append(f"less memory, but another run: {', '.join(others)}")
    return "\n".join([*lines, f"see what fits: reward-tuning estimate {root / 'recipe.yaml'}"])


@contextmanager
def out_of_memory_told(
    recipe: Mapping[str, Any], root: Path, report: ProgressFn, cuda: Callable[[], bool]
) -> Iterator[ProgressFn]:
    """Explain a failed allocation within the context.

    Args:
        recipe: Values of the recipe.
        root: The run folder.
        report: Receives every event.
        cuda: Return whether the run uses a GPU.

    Yields:
        The progress function to use, by which the message knows the stage.

    Raises:
        OutOfMemory: An allocation failed.
        SharedOutOfMemory: It ended every process at the same point.
    """
    last = ProgressEvent("loading")

    def seen(event: ProgressEvent) -> None:
        nonlocal last
        last = event
        report(event)

    try:
        yield seen
    except StepOutOfMemory as error:
        raise SharedOutOfMemory(message(recipe, root, str(error), cuda=cuda())) from error
    except (RuntimeError, MemoryError, PhaseOutOfMemory, MeasuringOutOfMemory) as error:
        if not ran_out(error):
            raise
        shared = isinstance(error, MeasuringOutOfMemory) and error.shared
        place = f"phase {error.phase}" if isinstance(error, PhaseOutOfMemory) else last.phase
        stage = f"{last.stage} {last.done}/{last.total}" if last.total else last.stage
        where = f"out of memory in {stage}{', ' if place else ''}{place}: {first_line(error)}"
        kind = SharedOutOfMemory if shared else OutOfMemory
        gradient = not (isinstance(error, MeasuringOutOfMemory) or last.stage.startswith(MEASURED))
        text = message(recipe, root, where, cuda=cuda(), gradient=gradient)
        raise kind(text, gradient=gradient) from error


def leave_together(failed: PhaseOutOfMemory | None, step: int, accelerator: Accelerator) -> None:
    """End the step on every process, where memory ran out in one.

    Args:
        failed: The failure of this process; None where another has failed.
        step: Number of the step.
        accelerator: Processes of the run; each of them calls this.

    Raises:
        StepOutOfMemory: Always.
    """
    mine = "" if failed is None else f"the phase {failed.phase} of step {step}: {failed}"
    if accelerator.num_processes == 1:
        raise StepOutOfMemory(f"out of memory in {mine}") from failed
    told: list[str] = gather_object([mine])
    process = next(number for number, text in enumerate(told) if text)
    text = f"out of memory on process {process} of {len(told)} in {told[process]}"
    raise StepOutOfMemory(text) from failed

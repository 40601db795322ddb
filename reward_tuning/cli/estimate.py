"""`reward-tuning estimate`: what a run needs, before it starts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reward_tuning.cli.output import print_json
from reward_tuning.cli.quick_imports import quick_imports

if TYPE_CHECKING:
    from reward_tuning.estimate.cards import Card
    from reward_tuning.estimate.estimate import Estimate
    from reward_tuning.estimate.remedies import Step

TOO_LARGE_CODE = 1
GB = 1e9


def estimate(
    recipe: Annotated[str, typer.Argument(help="A shipped name or a path")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, such as train.batch_size=2")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="A size such as 24GB or a name such as rtx-4090; default: the CPU"),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that share the run")] = 1,
    tflops: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Operations that a device keeps up, 10^12 a second; default: 40 % of the data "
            "sheet's for a GPU given by name",
        ),
    ] = None,
    memory_only: Annotated[
        bool, typer.Option("--memory-only", help="Do not count operations, which takes longer")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON")] = False,
) -> None:
    """Estimate memory by phase, operations, hours, disk and downloads of a run.

    The step that training runs is followed on PyTorch's meta device, where tensors have shapes and
    no values: nothing is downloaded, and no GPU is needed. If the run does not fit into the memory
    of --gpu, the changes that make it fit are listed with their prices, and the exit code is 1.
    """
    with quick_imports():
        from reward_tuning.cli.display import Display
        from reward_tuning.estimate.cards import card_of
        from reward_tuning.estimate.disk import disk_of
        from reward_tuning.estimate.estimate import estimate as estimate_run
        from reward_tuning.estimate.estimate import of_card
        from reward_tuning.estimate.process_memory import imported_bytes
        from reward_tuning.estimate.remedies import steps_to_fit
        from reward_tuning.estimate.step_cost import TERA
        from reward_tuning.evidence.any_recipe import load_any_recipe

    card = None if gpu is None else card_of(gpu)
    loaded = load_any_recipe(recipe, overrides or [], clips_needed=False)
    base = imported_bytes()
    rate = None if tflops is None else tflops * TERA
    with Display() as progress:
        found = estimate_run(
            loaded,
            gpus=0 if card is None else gpus,
            rate=rate,
            time=not memory_only,
            progress=progress,
        )
        steps: list[Step] = []
        if card is not None:
            found = of_card(found, card, rate)
            if found.peak[1] > card.usable:
                steps = steps_to_fit(found, card.usable, gpus=gpus, progress=progress)
    fits = card is None or found.peak[1] <= card.usable
    disk = disk_of(loaded)
    if as_json:
        print_json(_as_json(found, card, gpus, steps, base, disk, fits=fits))
    else:
        _print(found, card, gpus, steps, base, disk)
        if card is not None and not fits:
            _print_commands(recipe, overrides or [], steps, card)
    if not fits:
        raise typer.Exit(TOO_LARGE_CODE)


def _print(
    found: Estimate,
    card: Card | None,
    gpus: int,
    steps: list[Step],
    base: int,
    disk: dict[str, float],
) -> None:
    from reward_tuning.estimate.phase_memory import PARTS

    shown = [part for part in PARTS if any(of.get(part, 0) >= 5e6 for of in found.memory.values())]
    width = max(map(len, shown)) + 2
    print(f"{found.shape.name}: GB at the peak of each phase, by what holds them\n")
    print("phase".ljust(12) + "".join(part.rjust(width) for part in shown) + "together".rjust(12))
    largest = found.peak[0]
    for phase, of in found.memory.items():
        cells = "".join(f"{of.get(part, 0) / GB:{width}.2f}" for part in shown)
        mark = "  <- peak" if phase == largest else ""
        print(f"{phase:<12}{cells}{sum(of.values()) / GB:12.2f}{mark}")
    print(f"\nmemory     {_memory_line(found, card, base)}")
    if found.time is not None:
        print(f"work       {_work_line(found)}")
        if found.time.hours is not None:
            print(f"time       {_time_line(found, gpus)}")
        elif card is not None:
            print("time       unknown: give --tflops, or --gpu by name")
    print(f"disk       {_disk_line(disk)}")
    for note in found.notes:
        print(f"note       {note}")
    if card is not None and found.peak[1] > card.usable:
        _print_steps(steps, card)


def _memory_line(found: Estimate, card: Card | None, base: int) -> str:
    phase, size = found.peak
    if card is None:
        return (
            f"{size / GB:.2f} GB of tensors ({phase}); with {base / GB:.2f} GB of libraries a "
            f"process of {(size + base) / GB:.2f} GB"
        )
    word = "fits" if size <= card.usable else "does NOT fit"
    return (
        f"{size / GB:.1f} GB of tensors ({phase}); {word} into {card.memory / GB:.0f} GB, of which "
        f"{card.usable / GB:.1f} GB are left to tensors"
    )


def _work_line(found: Estimate) -> str:
    assert found.time is not None
    rows = {name: count for name, count in found.time.rows.items() if count}
    total = sum(rows.values())
    shares = ", ".join(
        f"{name} {count / total:.0%}"
        for name, count in sorted(rows.items(), key=lambda one: -one[1])[:5]
    )
    return f"{found.time.step / 1e12:,.2f} TFLOP a step on each device: {shares}"


def _time_line(found: Estimate, gpus: int) -> str:
    from reward_tuning.schema.recipe import Recipe

    assert found.time is not None
    seconds, hours, rate = found.time.seconds_a_step, found.time.hours, found.time.rate
    assert seconds is not None
    assert hours is not None
    assert rate is not None
    guarded = "; guards and samples come on top" if isinstance(found.recipe, Recipe) else ""
    many = ""
    if gpus > 1:
        more = f"{gpus} GPUs make {gpus} times as many clips a step in that time"
        many = f"; {more}; for fewer, lower train.gradient_accumulation or train.steps"
    return (
        f"{_duration(seconds)} a step, {_duration(hours * 3600)} for {found.time.steps} steps and "
        f"the evaluation, at {rate / 1e12:.3g} TFLOP/s{guarded}{many}"
    )


def _duration(seconds: float) -> str:
    """Return a time in the unit that suits it, with two digits."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 2 * size:
            number = seconds / size
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    return f"{seconds:.2g} s"


def _disk_line(disk: dict[str, float]) -> str:
    return (
        f"{disk['written'] / GB:.2f} GB of checkpoints and LoRA, {disk['download'] / GB:.1f} GB "
        "to download"
    )


def _print_steps(steps: list[Step], card: Card) -> None:
    if not steps:
        print("\nNo change that is known makes it smaller.")
        return
    print(f"\nto fit into {card.memory / GB:.0f} GB, one on top of the other:")
    width = max(len(step.change.overrides) for step in steps)
    for step in steps:
        fits = "fits" if step.bytes <= card.usable else ""
        print(
            f"  {step.change.overrides:<{width}}  {step.bytes / GB:6.1f} GB {fits:<5} "
            f"{step.change.price}"
        )
    if steps[-1].bytes > card.usable:
        print("  It does not fit with all of them; take fewer frames or a larger GPU.")


def _print_commands(
    recipe: str, overrides: Sequence[str], steps: Sequence[Step], card: Card
) -> None:
    """Print what to type next: a shipped recipe for such a card, or the run with the changes."""
    from reward_tuning.schema.locate import shipped_recipes

    small = [
        (float(size[1]), one.name)
        for one in shipped_recipes()
        if (size := re.fullmatch(rf"{re.escape(recipe)}-(\d+)gb", one.name))
    ]
    if fitting := [one for one in small if one[0] * GB <= card.memory]:
        print(f"\nthere is a recipe for such a card: reward-tuning run {max(fitting)[1]}")
    if steps and steps[-1].bytes <= card.usable:
        last = {}
        for change in " ".join(step.change.overrides for step in steps).split():
            last[change.partition("=")[0]] = change
        command = " ".join(["reward-tuning estimate", recipe, *overrides, *last.values()])
        print(f"\nwith all of them: {command} --gpu {card.memory / GB:g}GB")


def _as_json(
    found: Estimate,
    card: Card | None,
    gpus: int,
    steps: list[Step],
    base: int,
    disk: dict[str, float],
    *,
    fits: bool,
) -> dict[str, Any]:
    phase, size = found.peak
    time = found.time
    return {
        "shape": found.shape.name,
        "memory": found.memory,
        "peak": {"phase": phase, "bytes": size},
        "libraries": base,
        "gpu": None if card is None else dataclasses.asdict(card) | {"usable": card.usable},
        "gpus": gpus,
        "fits": fits,
        "changes": [
            {"overrides": step.change.overrides, "bytes": step.bytes, "price": step.change.price}
            for step in steps
        ],
        "work": None
        if time is None
        else {
            "flop_a_step": time.step,
            "flop_of_evaluation": time.evaluation,
            "rows_of_a_clip": dict(time.rows),
            "seconds_a_step": time.seconds_a_step,
            "hours": time.hours,
        },
        "disk": disk,
        "notes": list(found.notes),
    }

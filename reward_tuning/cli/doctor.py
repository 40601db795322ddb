"""`reward-tuning doctor`: what this machine has, and what a recipe needs of it."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from reward_tuning.cli.output import print_json
from reward_tuning.cli.quick_imports import quick_imports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reward_tuning.doctor.facts import Fact

PROBLEM_CODE = 1
MARK_WIDTH = len("problem")


def doctor(
    recipe: Annotated[
        str | None, typer.Argument(help="A shipped name or a path; default: what any may need")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, such as output=/data/runs/a")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON")] = False,
) -> None:
    """Look at this machine, its versions, devices, disks, weights, trackers and browsers.

    Each line is marked ok, note (works, or is missing without being required) or problem, and tells
    what to do. With a recipe: what that recipe needs. Nothing is downloaded, sent, loaded or
    written. Exits with code 1 if there is a problem.
    """
    with quick_imports():
        from reward_tuning.doctor.examination import examine, problems
        from reward_tuning.evidence.any_recipe import load_any_recipe

    loaded = None if recipe is None else load_any_recipe(recipe, overrides or [])
    facts = examine(loaded)
    found = problems(facts)
    if as_json:
        print_json(
            {
                "recipe": recipe,
                "ok": not found,
                "facts": [dataclasses.asdict(fact) for fact in facts],
            }
        )
    else:
        _print(facts, None if recipe is None else shlex.join([recipe, *(overrides or [])]))
    if found:
        raise typer.Exit(PROBLEM_CODE)


def _print(facts: Sequence[Fact], recipe: str | None) -> None:
    """Print a line for each fact, and one below it where there is something to do."""
    width = max(len(fact.name) for fact in facts)
    group = ""
    for fact in facts:
        if fact.group != group:
            print(f"{'' if not group else chr(10)}{fact.group}")
            group = fact.group
        print(f"  {fact.mark:<{MARK_WIDTH}}  {fact.name:<{width}}  {fact.value}")
        if fact.todo:
            print(f"  {'':<{MARK_WIDTH}}  {'':<{width}}  -> {fact.todo}")
    counts = {mark: sum(fact.mark == mark for fact in facts) for mark in ("problem", "note")}
    words = [f"{n} {mark}{'' if n == 1 else 's'}" for mark, n in counts.items()]
    asked = f" for {recipe}" if recipe is not None else ""
    print(f"\n{' and '.join(words)}{asked}")
    if recipe is not None:
        print(f"Its values, prompts and clips: reward-tuning validate {recipe}")
        print(f"Its memory and work: reward-tuning estimate {recipe}")

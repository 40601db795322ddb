"""`reward-tuning distil`: train an adapter that needs few steps and no guidance."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reward_tuning.cli.less_memory import Retry, retried
from reward_tuning.cli.quick_imports import quick_imports

if TYPE_CHECKING:
    from reward_tuning.distil.recipe import DistilRecipe


def distil(
    recipe: Annotated[str, typer.Argument(help="A shipped name (distil/NAME) or a path")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, such as student.steps=8")
    ] = None,
    retry_with_less_memory: Retry = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON")] = False,
) -> None:
    """Train a LoRA with which the generator needs few steps and no guidance.

    Sample with it at the recipe's student.steps and --guidance-scale 1, or train rewards on top of
    it with generator.adapter=RUN_FOLDER.
    """
    from reward_tuning.distil.folder import DistilFolder
    from reward_tuning.distil.recipe import load_distil_recipe

    loaded = load_distil_recipe(recipe, overrides or [])
    DistilFolder(loaded.output).refuse_existing_run()
    with retried(loaded, wanted=retry_with_less_memory):
        distil_with_progress(loaded, resume=False, as_json=as_json)


def distil_with_progress(recipe: "DistilRecipe", *, resume: bool, as_json: bool) -> None:
    """Run a recipe with a progress display and print its result."""
    from reward_tuning.cli.display import Display
    from reward_tuning.cli.summary import print_summary
    from reward_tuning.cli.training import stops_explained

    with quick_imports():
        from reward_tuning.distil.trainer import distil as train
        from reward_tuning.runs.launching import is_main_process, leave_processes

    folder = Path(recipe.output)
    with stops_explained(folder), Display() as progress:
        train(recipe, resume=resume, progress=progress)
    if is_main_process():
        print_summary(folder, as_json=as_json)
    leave_processes()

"""`reward-tuning finetune`: train a LoRA, or all weights, on your own clips."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reward_tuning.cli.less_memory import Retry, retried
from reward_tuning.cli.quick_imports import quick_imports

if TYPE_CHECKING:
    from reward_tuning.finetune.recipe import FinetuneRecipe


def finetune(
    recipe: Annotated[str, typer.Argument(help="A shipped name (finetune/NAME) or a path")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, such as data.metadata=clips.csv")
    ] = None,
    retry_with_less_memory: Retry = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON")] = False,
) -> None:
    """Train a generator on clips by flow matching, often before reward tuning.

    Start reward tuning from its LoRA with lora.init=RUN_FOLDER.
    """
    from reward_tuning.finetune.recipe import load_finetune_recipe
    from reward_tuning.runs.folder import RunFolder

    loaded = load_finetune_recipe(recipe, overrides or [])
    RunFolder(loaded.output).refuse_existing_run()
    with retried(loaded, wanted=retry_with_less_memory):
        finetune_with_progress(loaded, resume=False, as_json=as_json)


def finetune_with_progress(recipe: "FinetuneRecipe", *, resume: bool, as_json: bool) -> None:
    """Run a recipe with a progress display and print its result."""
    from reward_tuning.cli.display import Display
    from reward_tuning.cli.summary import print_finetune
    from reward_tuning.cli.training import stops_explained

    with quick_imports():
        from reward_tuning.finetune.trainer import finetune as train
        from reward_tuning.runs.launching import is_main_process, leave_processes

    folder = Path(recipe.output)
    with stops_explained(folder), Display() as progress:
        result = train(recipe, resume=resume, progress=progress)
    if is_main_process():
        print_finetune(folder, dict(result.evaluation), as_json=as_json)
    leave_processes()

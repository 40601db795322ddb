"""`reward-tuning run`: train, evaluate and export as a recipe says."""

from typing import Annotated

import typer

from reward_tuning.cli.less_memory import Retry, retried
from reward_tuning.cli.quick_imports import quick_imports


def run(
    recipe: Annotated[str, typer.Argument(help="A shipped name or a path")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, such as train.steps=6")
    ] = None,
    retry_with_less_memory: Retry = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON")] = False,
) -> None:
    """Tune a generator as a recipe says; everything it makes is in the run folder."""
    from reward_tuning.cli.devices import chosen_device
    from reward_tuning.cli.display import Display
    from reward_tuning.runs.folder import RunFolder
    from reward_tuning.schema.loading import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    RunFolder(loaded.output).refuse_existing_run()

    with quick_imports():
        from reward_tuning.tuning.preflight import check_run

    with Display() as progress:
        found = check_run(loaded, chosen_device(None), progress)
    found.refuse()

    from reward_tuning.cli.training import train_with_progress

    with retried(loaded, wanted=retry_with_less_memory):
        train_with_progress(loaded, resume=False, as_json=as_json)

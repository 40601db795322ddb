"""`reward-tuning resume`: continue a stopped run."""

from pathlib import Path
from typing import Annotated

import typer

from reward_tuning.cli.less_memory import Retry, retried


def resume(
    folder: Annotated[Path, typer.Argument(help="The run folder")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, such as train.steps=200")
    ] = None,
    retry_with_less_memory: Retry = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON")] = False,
) -> None:
    """Continue a stopped run from its last checkpoint; the result is as if it had never stopped.

    train.steps=N also extends a finished run. docs/runs.md lists the other keys that may change.
    """
    from reward_tuning.distil.recipe import DistilRecipe
    from reward_tuning.evidence.any_recipe import recipe_of_run
    from reward_tuning.finetune.recipe import FinetuneRecipe

    loaded = recipe_of_run(folder, overrides or [])
    with retried(loaded, wanted=retry_with_less_memory):
        if isinstance(loaded, DistilRecipe):
            from reward_tuning.cli.distil import distil_with_progress

            distil_with_progress(loaded, resume=True, as_json=as_json)
        elif isinstance(loaded, FinetuneRecipe):
            from reward_tuning.cli.finetune import finetune_with_progress

            finetune_with_progress(loaded, resume=True, as_json=as_json)
        else:
            from reward_tuning.cli.training import train_with_progress

            train_with_progress(loaded, resume=True, as_json=as_json)

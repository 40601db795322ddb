"""`reward-tuning resume`: go on with a run that was stopped."""

from pathlib import Path
from typing import Annotated

import typer

from reward_tuning.errors import TuningError


def resume(
    folder: Annotated[Path, typer.Argument(help="The run folder.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="train.steps=200, and what else may change")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result.")] = False,
) -> None:
    """Go on with a stopped run from its last checkpoint; ends as if it had never stopped.

    train.steps=N goes on with a finished run, too, to more steps. Which other keys may change:
    docs/runs.md.
    """
    from reward_tuning.finetune.recipe import FinetuneRecipe, load_any_recipe

    kept = folder / "recipe.yaml"
    if not kept.is_file():
        raise TuningError(
            f"{folder} is no run folder: it has no recipe.yaml. Give the folder that a run wrote "
            "to (its `output`)"
        )
    # the folder may have been moved since
    loaded = load_any_recipe(kept, overrides or []).model_copy(update={"output": str(folder)})
    if isinstance(loaded, FinetuneRecipe):
        from reward_tuning.cli.finetune import finetune_and_tell

        finetune_and_tell(loaded, resume=True, as_json=as_json)
        return

    from reward_tuning.cli.training import train_with_progress

    train_with_progress(loaded, resume=True, as_json=as_json)

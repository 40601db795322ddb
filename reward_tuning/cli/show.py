"""`reward-tuning show`: a recipe's text, with its comments; or what a run has come to."""

from pathlib import Path
from typing import Annotated

import typer

from reward_tuning.recipe_files import find_recipe


def show(
    recipe: Annotated[str, typer.Argument(help="A shipped name, a path, or a run folder.")],
) -> None:
    """Print a recipe as it is written, comments included; of a run folder, what came of the run."""
    folder = Path(recipe).expanduser()
    if (folder / "recipe.yaml").is_file():
        from reward_tuning.cli.summary import print_run

        print_run(folder)
        return
    print(find_recipe(recipe).read_text(encoding="utf-8"), end="")

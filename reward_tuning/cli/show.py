"""`reward-tuning show`: a recipe's text, with its comments."""

from typing import Annotated

import typer

from reward_tuning.recipe_files import find_recipe


def show(
    recipe: Annotated[str, typer.Argument(help="A shipped name or a path.")],
) -> None:
    """Print a recipe as it is written, comments included."""
    print(find_recipe(recipe).read_text(encoding="utf-8"), end="")

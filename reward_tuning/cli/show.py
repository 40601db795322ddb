"""`reward-tuning show`: print a recipe with its comments, or what `run` or `evaluate` found."""

from pathlib import Path
from typing import Annotated

import typer

from reward_tuning.cli.output import print_json
from reward_tuning.files.yaml_text import read_yaml_file
from reward_tuning.schema.locate import find_recipe


def show(
    recipe: Annotated[
        str, typer.Argument(help="A shipped name, a path, or a folder of `run` or `evaluate`")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the recipe's values, or the result, as JSON")
    ] = False,
) -> None:
    """Print a recipe with its comments, or the result of a run or of `evaluate`."""
    folder = Path(recipe).expanduser()
    if (folder / "recipe.yaml").is_file():
        from reward_tuning.cli.summary import print_run

        print_run(folder, as_json=as_json)
        return
    if (folder / "evaluation.json").is_file():
        from reward_tuning.cli.summary import print_evaluation

        print_evaluation(folder, as_json=as_json)
        return
    path = find_recipe(recipe, besides=" nor a run folder")
    if as_json:
        print_json({"name": recipe, "path": str(path), "recipe": read_yaml_file(path)})
    else:
        print(path.read_text(encoding="utf-8"), end="")

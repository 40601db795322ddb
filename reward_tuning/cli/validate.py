"""`reward-tuning validate`: is this recipe right, and what does it say in full."""

import sys
from typing import Annotated

import typer

from reward_tuning.cli.output import print_json


def validate(
    recipe: Annotated[str, typer.Argument(help="A shipped name or a path.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, such as train.steps=6")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Check a recipe and print it fully resolved, every value explicit.

    Mistakes are told all at once; exit code 2. Among them: a judge under rewards that is for the
    evaluation only, as it has no gradient to train on. Judges that must be fetched first are no
    mistakes; they are told on stderr.
    """
    from reward_tuning.cli.checks import check_run, missing_judges
    from reward_tuning.loading import dump_recipe, load_recipe

    loaded = load_recipe(recipe, overrides or [])
    check_run(loaded)
    if as_json:
        print_json(loaded.model_dump(mode="json"))
    else:
        print(dump_recipe(loaded), end="")
    for line in missing_judges(loaded):
        print(f"note: {line}", file=sys.stderr)

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
    from reward_tuning.finetune.recipe import FinetuneRecipe, load_any_recipe
    from reward_tuning.loading import dump_recipe

    loaded = load_any_recipe(recipe, overrides or [])
    notes = []
    if isinstance(loaded, FinetuneRecipe):
        from reward_tuning.finetune.metadata import read_metadata

        read_metadata(loaded.data.metadata, loaded.data.folder)
    else:
        check_run(loaded)
        notes = missing_judges(loaded)
    if as_json:
        print_json(loaded.model_dump(mode="json"))
    else:
        print(dump_recipe(loaded), end="")
    for line in notes:
        print(f"note: {line}", file=sys.stderr)

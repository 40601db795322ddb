"""A recipe of whichever verb trains: `run`, `finetune` or `distil`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reward_tuning.distil.recipe import DistilRecipe, load_distil_recipe
from reward_tuning.errors import TuningError
from reward_tuning.files.yaml_text import read_yaml_file
from reward_tuning.finetune.recipe import FinetuneRecipe, load_finetune_recipe
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.locate import find_recipe, verb_of
from reward_tuning.schema.recipe import Recipe

AnyRecipe = Recipe | FinetuneRecipe | DistilRecipe


def load_any_recipe(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    check_files: bool = True,
    clips_needed: bool = True,
) -> AnyRecipe:
    """Read a recipe of any verb; see `reward_tuning.schema.loading.load_as`.

    With `clips_needed=False` the list of clips of a fine-tuning need not be there.
    """
    match verb_of(read_yaml_file(find_recipe(source))):
        case "finetune":
            return load_finetune_recipe(
                source, overrides, check_files=check_files, clips_needed=clips_needed
            )
        case "distil":
            return load_distil_recipe(source, overrides, check_files=check_files)
        case _:
            return load_recipe(source, overrides, check_files=check_files)


def recipe_of_run(folder: Path, overrides: Sequence[str] = ()) -> AnyRecipe:
    """Read the recipe that a run folder keeps, as a recipe of the folder where it is now.

    Raises:
        TuningError: The folder holds no run, or an override is wrong.
    """
    kept = folder / "recipe.yaml"
    if not kept.is_file():
        raise TuningError(
            f"{folder} is not a run folder: it has no recipe.yaml; give the `output` of a run"
        )
    # the folder may have been moved since the run wrote its recipe
    return load_any_recipe(kept, overrides).model_copy(update={"output": str(folder)})

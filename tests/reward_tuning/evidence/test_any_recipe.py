"""A recipe is read by the schema of its verb."""

from pathlib import Path

import pytest

from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.errors import TuningError
from reward_tuning.evidence.any_recipe import load_any_recipe, recipe_of_run
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.schema.loading import dump_recipe
from reward_tuning.schema.recipe import Recipe


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tiny-demo", Recipe),
        ("finetune/stage-2-3328", FinetuneRecipe),
        ("distil/tiny-4-steps", DistilRecipe),
    ],
)
def test_each_verb_has_its_own(name: str, kind: type, tmp_path: Path) -> None:
    found = load_any_recipe(name, check_files=False)
    assert type(found) is kind
    (tmp_path / "recipe.yaml").write_text(dump_recipe(found))
    if kind is not FinetuneRecipe:  # its clips are not here
        again = recipe_of_run(tmp_path)
        assert again.output == str(tmp_path)
        assert again.model_copy(update={"output": found.output}) == found


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="is not a run folder"):
        recipe_of_run(tmp_path)

"""An optimiser by its name or as a section; what is wrong with either."""

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.runs.optimiser import OPTIMISERS
from reward_tuning.runs.resumable import comparable
from reward_tuning.schema.loading import dump_recipe, load_recipe
from reward_tuning.schema.mistakes import members
from reward_tuning.schema.optimiser_sections import AdamW, AdamW8bit, OptimiserSection
from tests.reward_tuning.recipes_for_tests import write_recipe


@pytest.mark.parametrize(
    ("given", "section"),
    [
        ("adamw", AdamW()),
        ("adamw-8bit", AdamW8bit()),
        ("{kind: adamw}", AdamW()),
        ("{kind: adamw-8bit}", AdamW8bit()),
    ],
)
def test_a_name_and_a_section_are_one_and_dumped_as_the_name(
    tmp_path: Path, given: str, section: OptimiserSection
) -> None:
    """Recipes and checkpoints of older versions, which hold the name, stay comparable."""
    recipe = load_recipe(write_recipe(tmp_path), [f"train.optimiser={given}"])
    assert recipe.train.optimiser == section
    assert comparable(recipe)["train"]["optimiser"] == section.kind
    assert f"  optimiser: {section.kind}\n" in dump_recipe(recipe)
    assert load_recipe(write_recipe(tmp_path, dump_recipe(recipe))) == recipe


def test_adamw_is_the_default(tmp_path: Path) -> None:
    assert load_recipe(write_recipe(tmp_path)).train.optimiser == AdamW()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("adamx", "optimiser.kind: got 'adamx'; allowed: adamw, adamw-8bit; did you mean adamw?"),
        ("{}", "train.optimiser.kind: is missing; allowed: adamw, adamw-8bit"),
        ("{kind: adamw, knd: 1}", "train.optimiser.knd: unknown key (got 1); did you mean"),
        (
            "3",
            "train.optimiser: got 3; allowed: adamw, adamw-8bit, or a section with one of them as "
            "its `kind`",
        ),
        ("null", "train.optimiser: got null; allowed: adamw, adamw-8bit, or a section"),
    ],
)
def test_mistakes(tmp_path: Path, given: str, told: str) -> None:
    with pytest.raises(TuningError) as caught:
        load_recipe(write_recipe(tmp_path), [f"train.optimiser={given}"])
    assert told in str(caught.value)


def test_each_kind_can_be_built() -> None:
    kinds = {section.model_fields["kind"].default for section in members(OptimiserSection)}
    assert kinds == set(OPTIMISERS)

"""A distillation as a source of an evaluation is sampled as it was distilled."""

from __future__ import annotations

from pathlib import Path

import yaml

from reward_tuning.cli.judges import judges_by_name
from reward_tuning.evidence.request import EvaluationRequest
from reward_tuning.evidence.setup import resolve
from tests.reward_tuning.distil.few_steps import small_recipe


def distil_folder(world: Path, tmp_path: Path, *overrides: str) -> Path:
    """A folder with the recipe of a distillation, which is all that a setup reads."""
    folder = tmp_path / "distilled"
    folder.mkdir()
    recipe = small_recipe(world, folder, *overrides)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return folder


def test_a_distillation_is_measured_as_it_was_distilled(world: Path, tmp_path: Path) -> None:
    folder = distil_folder(world, tmp_path, "evaluation.prompts=2")
    setup = resolve(EvaluationRequest([folder]))
    assert (list(setup.steps), list(setup.guidance)) == ([3], [1.0])
    assert (setup.sampling.steps, setup.sampling.guidance_scale) == (3, 1.0)
    assert (setup.size, setup.seed, setup.batch_size) == ((5, 32, 32), 3, 4)
    assert [judge.label for judge in setup.judges] == ["clip_held_out"]
    assert (setup.never_trained_on, setup.primary) == (["clip_held_out"], "clip_held_out")
    assert len(setup.prompts) == 2
    assert len(setup.notes) == 1
    assert "every side, the base too, is sampled in 3 steps without guidance" in setup.notes[0]


def test_other_sampling_of_a_distillation_is_noted(
    finished: Path, world: Path, tmp_path: Path
) -> None:
    folder = distil_folder(world, tmp_path)
    told = "distilled for 3 steps without guidance, but every side is sampled in 8 steps"
    assert any(told in note for note in resolve(EvaluationRequest([folder], steps=[8])).notes)
    both = resolve(EvaluationRequest([finished, folder]))  # the reward tuning decides
    assert (list(both.steps), list(both.guidance)) == ([4], [3.0])
    assert any("in 4 steps at guidance 3; --steps 3 --guidance 1" in note for note in both.notes)
    assert len(resolve(EvaluationRequest([folder], count=3)).prompts) == 3


def test_a_judge_is_named_as_in_a_distillation(world: Path, tmp_path: Path) -> None:
    folder = distil_folder(world, tmp_path)
    assert [one.kind for one in judges_by_name(["clip_held_out"], [folder])] == ["clip"]

"""The sides of a distillation: who samples how, and what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from reward_tuning.distil.evaluation import finish
from reward_tuning.distil.folder import DistilFolder
from reward_tuning.distil.parts import load_distil_parts
from reward_tuning.progress import silent
from tests.reward_tuning.distil.few_steps import small_recipe
from tests.reward_tuning.tiny_run import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def test_a_teacher_without_guidance_is_its_own_base_of_few_steps(world: Path) -> None:
    recipe = small_recipe(
        world, world / "plain", "teacher.guidance_scale=1", "evaluation.prompts=2"
    )
    parts = load_distil_parts(recipe, torch.device("cpu"), 5, silent)
    found = finish(
        recipe,
        parts,
        Accelerator(cpu=True),
        DistilFolder(recipe.output),
        parts.trained.state(),
        silent,
    )
    names = [side["name"] for side in found["sides"]]
    assert names == ["base", "tuned", "base, 3 guided steps"]
    # an adapter that does nothing yet: the student is the base with as few steps
    few, tuned = found["sides"][2]["means"], found["tuned"]
    assert few == pytest.approx(tuned)
    assert found["base"]["clip_held_out"] != tuned["clip_held_out"]
    assert (world / "plain" / "lora" / "adapter_model.safetensors").is_file()

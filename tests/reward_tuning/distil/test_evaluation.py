"""The sides of a distillation: who samples how, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from reward_tuning.distil.evaluation import finish
from reward_tuning.distil.folder import DistilFolder
from reward_tuning.distil.parts import load_distil_parts
from reward_tuning.progress import silent
from reward_tuning.report.evaluations import read_evaluation
from tests.reward_tuning.distil.few_steps import small_recipe
from tests.reward_tuning.tiny_run import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def finished(world: Path, output: Path, *overrides: str) -> dict[str, Any]:
    """The evaluation of an adapter that does nothing yet."""
    shown = ("evaluation.few_steps=true", "evaluation.prompts=2", *overrides)
    recipe = small_recipe(world, output, *shown)
    parts = load_distil_parts(recipe, torch.device("cpu"), 5, silent)
    folder, adapter = DistilFolder(recipe.output), parts.trained.state()
    return finish(recipe, parts, Accelerator(cpu=True), folder, adapter, silent)


def test_the_sides_are_the_guided_base_the_student_and_the_base_of_few_steps(
    world: Path, tmp_path: Path
) -> None:
    found = finished(world, tmp_path / "run")
    sides = [
        (side["name"], side["steps"], side["guidance_scale"], side["strength"], side["against"])
        for side in found["sides"]
    ]
    assert sides == [
        ("base", 5, 3.0, 0.0, None),
        ("tuned", 3, 1.0, 1.0, 0),
        ("base, 3 steps", 3, 1.0, 0.0, 0),
        ("base, 3 guided steps", 3, 3.0, 0.0, 0),
    ]
    # an adapter that does nothing yet: the student is the base with as few steps and no guidance
    assert found["sides"][2]["means"] == found["tuned"]
    assert found["base"]["clip_held_out"] != found["tuned"]["clip_held_out"]
    assert (found["trained_on"], found["never_trained_on"]) == ([], ["clip_held_out"])
    assert found["primary"] == "clip_held_out"
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text()) == found
    read = read_evaluation(tmp_path / "run")
    assert read is not None
    assert len(read.sides) == 4
    assert len(list((tmp_path / "run" / "evaluation").rglob("*.mp4"))) == 4 * 2
    assert (tmp_path / "run" / "lora" / "adapter_model.safetensors").is_file()


def test_a_teacher_without_guidance_has_one_side_less(world: Path, tmp_path: Path) -> None:
    found = finished(world, tmp_path / "run", "teacher.guidance_scale=1")
    names = [side["name"] for side in found["sides"]]
    assert names == ["base", "tuned", "base, 3 steps"]

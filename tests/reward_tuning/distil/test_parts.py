"""What a distillation loads, and what its resume must find unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from base_model.sampling.guidance import Guidance
from reward_tuning.distil.parts import fingerprints_of, load_distil_parts
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.progress import ProgressEvent
from tests.reward_tuning.distil.few_steps import small_recipe
from tests.reward_tuning.tiny_run import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def test_teacher_and_student_differ_in_guidance_alone(world: Path) -> None:
    told: list[ProgressEvent] = []
    recipe = small_recipe(world, world / "run", "teacher.guidance_rescale=0.5")
    parts = load_distil_parts(recipe, torch.device("cpu"), 5, told.append)
    assert parts.teacher.guidance == Guidance(3.0, 0.5)
    assert parts.student.guidance == Guidance(1.0)
    assert parts.student.generator is parts.teacher.generator
    assert parts.table.inner.shape == (2, 3)
    assert [judge.label for judge in parts.judges] == ["clip_held_out"]
    phases = [one.phase for one in told if one.stage == "loading"]
    assert phases.index("judges") < phases.index(f"generator {recipe.generator.checkpoint}")
    unseen = [f"the text of {prompt.text}" for prompt in parts.stream.prompts]
    assert not {*unseen} & {*parts.teacher.states}


def test_each_thing_that_was_read_has_its_own_hash(world: Path) -> None:
    recipe = small_recipe(world, world / "run")
    train, held_out = [Prompt("a", "a")], [Prompt("b", "b")]
    found = fingerprints_of(recipe, train, held_out)
    assert list(found) == [
        *("generator", "text encoder", "prompts.train", "prompts.held_out"),
        "clip_held_out.checkpoint",
    ]
    assert all(one.startswith("sha256:") and len(one) == 71 for one in found.values())
    other = fingerprints_of(recipe, train, [Prompt("c", "b")])
    assert [name for name in found if found[name] != other[name]] == ["prompts.held_out"]

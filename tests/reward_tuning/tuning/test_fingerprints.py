"""Fingerprints of a run: a name for each part, and another value when its content changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from reward_tuning.tuning.fingerprints import fingerprints_of
from tests.reward_tuning.tiny_run import tiny_recipe, write_world


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return write_world(tmp_path)


def test_each_part_has_its_own(world: Path) -> None:
    recipe = tiny_recipe(world, world / "run")
    stages: list[str] = []
    found = fingerprints_of(recipe, lambda event: stages.append(event.phase))
    judges = {"clip", "clip_held_out"}
    assert set(found) == {"generator", "text encoder", "prompts.train", "prompts.held_out"} | judges
    assert all(value.startswith("sha256:") and len(value) == 71 for value in found.values())
    assert stages == ["checkpoint hashes"]
    file = world / "judge" / "flat.safetensors"
    assert found["clip"] == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert found["clip"] != found["clip_held_out"]


def test_only_the_changed_part_differs(world: Path) -> None:
    recipe = tiny_recipe(world, world / "run")
    before = fingerprints_of(recipe)
    with (world / "train.txt").open("a") as file:
        file.write("a new prompt\n")
    after = fingerprints_of(recipe)
    assert {name for name in before if before[name] != after[name]} == {"prompts.train"}

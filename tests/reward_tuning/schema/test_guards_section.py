"""The section of the guards in a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_tuning.schema.loading import load_recipe
from tests.reward_tuning.recipes_for_tests import told_once, write_recipe


def test_a_rule_may_be_written_as_its_action(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    guards = load_recipe(path, ["guards.motion=off", "guards.drift={action: stop, high: 0.5}"])
    assert guards.guards.motion.action == "off"
    assert guards.guards.motion.high == 1.25
    assert (guards.guards.drift.action, guards.guards.drift.high) == ("stop", 0.5)
    assert guards.guards.held_out.action == "stop"


def test_a_recipe_with_guards_reads_back_equal(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, guards={"every": 5, "diversity": "rollback"})
    found = load_recipe(path).guards
    assert found.every == 5
    assert found.diversity.action == "rollback"
    assert type(found).model_validate(found.model_dump(mode="json")) == found


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("guards.motion=halt", "guards.motion"),
        ("guards.motion.low=1.5", "guards.motion.low"),
        ("guards.motion.high=0.5", "guards.motion.high"),
        ("guards.prompts=1", "guards.prompts"),
        ("guards.every=-1", "guards.every"),
        ("guards.drift.high=0", "guards.drift.high"),
        ("guards.movement=off", "guards.movement"),
    ],
)
def test_mistakes(tmp_path: Path, override: str, named: str) -> None:
    assert told_once(write_recipe(tmp_path), override).startswith(named)

"""The judges of several runs, each once, and which of them a run was trained on."""

from __future__ import annotations

from pathlib import Path

from reward_tuning.evidence.judge_roles import judges_of_runs, roles_of
from tests.reward_tuning.tiny_run import tiny_recipe


def test_judges_of_several_runs(world: Path, tmp_path: Path) -> None:
    first = tiny_recipe(world, tmp_path / "a")
    same = tiny_recipe(world, tmp_path / "b", "rewards.0.weight=3.0", "rewards.0.name=mine")
    held = "judge/flat.safetensors"
    swapped = tiny_recipe(
        world,
        tmp_path / "c",
        f"rewards.0.checkpoint={world / 'held-out/flat.safetensors'}",
        f"evaluation.held_out_rewards.0.checkpoint={world / held}",
    )
    fewer = tiny_recipe(world, tmp_path / "d", "rewards.0.frames=2")
    assert [one.label for one in judges_of_runs([("a", first)])] == ["clip", "clip_held_out"]
    assert [one.label for one in judges_of_runs([("a", first), ("b", same)])] == [
        "clip",
        "clip_held_out",
    ]
    # the same two files in the other roles: both were trained on by some run
    judges = judges_of_runs([("a", first), ("c", swapped)])
    assert [one.label for one in judges] == ["clip", "clip (c)"]
    assert roles_of(judges, [first, swapped]) == (["clip", "clip (c)"], [])
    # a judge of other frames is another one
    judges = judges_of_runs([("a", first), ("d", fewer)])
    assert [one.label for one in judges] == ["clip", "clip (d)", "clip_held_out"]
    assert roles_of(judges, [first, fewer]) == (["clip", "clip (d)"], ["clip_held_out"])

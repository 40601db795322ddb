"""What the end of a run says about the checkpoint that it exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.choice import choice
from tests.reward_tuning.recipes_for_tests import write_recipe


def recipe(tmp_path: Path, *overrides: str) -> Recipe:
    return load_recipe(write_recipe(tmp_path), ["train.steps=100", *overrides])


def row(step: int, now: float, *fired: tuple[str, str], **more: Any) -> dict[str, Any]:
    each = [now - 0.5 - 0.01, now - 0.5 + 0.01]
    return {
        "step": step,
        "measures": {"clip": {"base": 0.5, "now": now, "mean": now - 0.5, "each": each}},
        "fired": [{"rule": r, "action": a, "text": f"why {r}"} for r, a in fired],
        **more,
    }


def test_the_last_of_a_run_in_which_nothing_fired(tmp_path: Path) -> None:
    rows = [row(20, 0.51), row(100, 0.53)]
    assert choice(rows, recipe(tmp_path), ["clip"], made=100, ended=False) == {
        "step": 100,
        "of": 100,
        "chosen_by": "clip",
        "stopped_at": None,
        "rule": None,
        "text": "Exported: the last checkpoint, step 100, chosen by clip: 0.53 (base 0.5). "
        "No guard fired.",
    }


def test_a_run_that_a_rule_stopped(tmp_path: Path) -> None:
    rows = [row(20, 0.48), row(40, 0.4, ("motion", "warn"), ("held_out", "stop"))]
    assert choice(rows, recipe(tmp_path), ["clip"], made=40, ended=True) == {
        "step": 20,
        "of": 100,
        "chosen_by": "clip",
        "stopped_at": 40,
        "rule": "held_out",
        "text": "A guard ended the training at step 40 of 100 (held_out: why held_out). "
        "From step 40 guard motion warned: why motion. Exported: step 20 of 40, chosen by clip: "
        "0.48, at step 40 0.4 (base 0.5). It is below the base by 0.02 on the held-out judge clip. "
        "No checkpoint is above the base.",
    }


def test_an_export_below_the_base_is_named_though_another_checkpoint_is_above(
    tmp_path: Path,
) -> None:
    rows = [row(20, 0.5005), row(40, 0.4985)]
    rows[0]["measures"]["clip"]["each"] = [0.05, -0.049]  # 40 is less than an error below 20
    rows[1]["measures"]["clip"]["each"] = [-0.05, 0.047]
    text = choice(rows, recipe(tmp_path), ["clip"], made=40, ended=False)["text"]
    assert text == (
        "Exported: the last checkpoint, step 40, chosen by clip: 0.4985 (base 0.5). "
        "It is below the base by 0.0015 on the held-out judge clip. No guard fired."
    )
    unchosen = recipe(tmp_path, "guards.best=false")
    text = choice(rows, unchosen, ["clip"], made=40, ended=False)["text"]
    assert "step 40. It is below the base by 0.0015 on the held-out judge clip." in text


def test_a_warning_is_told_once_and_a_rollback_with_its_aim(tmp_path: Path) -> None:
    rows = [
        row(20, 0.51, ("drift", "warn")),
        row(40, 0.52, ("drift", "warn"), ("motion", "rollback"), back_to=20),
        row(60, 0.52, ("motion", "rollback"), back_to=0),
        row(80, 0.53),
    ]
    text = choice(rows, recipe(tmp_path), ["clip"], made=80, ended=False)["text"]
    assert text.startswith(
        "At step 40 motion led back to step 20. At step 60 motion led back to the start. "
        "From step 20 guard drift warned: why drift. Exported:"
    )
    assert text.count("drift") == 2


def test_without_a_held_out_judge_or_without_best_the_last_is_exported(tmp_path: Path) -> None:
    rows = [row(20, 0.6), row(40, 0.4)]
    found = choice(rows, recipe(tmp_path), [], made=40, ended=False)
    assert (found["step"], found["chosen_by"]) == (40, None)
    assert found["text"] == "Exported: the last checkpoint, step 40. No guard fired."
    last = recipe(tmp_path, "guards.best=false")
    found = choice(rows, last, ["clip"], made=40, ended=False)
    assert (found["step"], found["chosen_by"]) == (40, None)
    assert choice(rows, recipe(tmp_path), ["clip"], made=40, ended=False)["step"] == 20


def test_a_rule_without_a_judge_saves_the_checkpoint_before_it(tmp_path: Path) -> None:
    rows = [row(20, 0.6), row(40, 0.4, ("motion", "stop"))]
    found = choice(rows, recipe(tmp_path), [], made=40, ended=True)
    assert (found["step"], found["rule"], found["chosen_by"]) == (20, "motion", None)

"""What must be the same when a run is resumed."""

from pathlib import Path

import pytest

from reward_tuning.runs.resumable import (
    changed_recipe,
    comparable,
    memory_keys,
    recipe_differences,
    versions,
    with_new_keys,
    without_free,
)
from reward_tuning.schema.loading import load_recipe
from tests.reward_tuning.recipes_for_tests import write_recipe


def values(folder: Path, *overrides: str) -> dict:
    return comparable(load_recipe(write_recipe(folder), overrides))


@pytest.mark.parametrize(
    "key",
    [
        "steps",
        "checkpoint_every",
        "keep_checkpoints",
        "log_every",
        "sample_every",
        "max_bad_steps",
    ],
)
def test_some_keys_change_no_step_that_both_runs_make(tmp_path: Path, key: str) -> None:
    assert values(tmp_path, f"train.{key}=7") == values(tmp_path, "output=elsewhere")


@pytest.mark.parametrize("change", ["clips=1", "strengths=[0.5]", "strength_prompts=3"])
def test_what_is_shown_besides_may_change(tmp_path: Path, change: str) -> None:
    assert values(tmp_path, f"evaluation.{change}") == values(tmp_path)
    assert "evaluation" in values(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        "generator.memory=offload",
        "train.keep_graphs=3",
        "train.gradient_checkpointing=true",
        "train.decoder_checkpointing=false",
    ],
)
def test_where_things_are_kept_may_change(tmp_path: Path, change: str) -> None:
    assert values(tmp_path, change) == values(tmp_path)
    key = change.partition("=")[0]
    recipe = load_recipe(write_recipe(tmp_path), [change]).model_dump(mode="json")
    section, _, name = key.partition(".")
    assert memory_keys(recipe)[key] == recipe[section][name]
    assert name not in values(tmp_path)[section]
    # what an older version has kept in its checkpoints
    assert without_free({**recipe})[section] == values(tmp_path)[section]


JUDGE = "evaluation.held_out_rewards=[{kind: http, url: 'http://a:1/score'KEYS}]"


@pytest.mark.parametrize(
    ("keys", "same"),
    [
        (", timeout: 9.0, retries: 0, parallel: 1, max_mb: 1.0, key_env: KEY", True),
        (", batch: 2", False),
        (", fps: 16.0", False),
    ],
)
def test_how_a_judge_outside_this_process_is_asked_may_change(
    tmp_path: Path, keys: str, same: bool
) -> None:
    one, two = (values(tmp_path, JUDGE.replace("KEYS", text)) for text in ("", keys))
    assert (one == two) is same
    assert one == values(tmp_path, JUDGE.replace("KEYS", "").replace("//a:1", "//b:2"))


def test_the_guards_may_change(tmp_path: Path) -> None:
    """And a checkpoint of a version without them has none to compare."""
    changed = values(tmp_path, "guards.every=7", "guards.motion=stop")
    assert changed == values(tmp_path)
    assert "guards" not in changed


def test_the_number_of_steps_counts_where_the_rate_depends_on_it(tmp_path: Path) -> None:
    one, two = (values(tmp_path, "train.lr_schedule=cosine", f"train.steps={n}") for n in (7, 8))
    assert recipe_differences(one, two) == ["train.steps: was 7, is 8"]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed=4", "seed: was 3, is 4"),
        ("rewards.0.weight=3", "rewards.0.weight: was 2.0, is 3.0"),
        ("train.ema_decay=0.5", "train.ema_decay: was None, is 0.5"),
    ],
)
def test_any_other_key_counts(tmp_path: Path, override: str, line: str) -> None:
    assert recipe_differences(values(tmp_path), values(tmp_path, override)) == [line]


def test_lists_of_other_lengths_and_keys_that_one_side_lacks() -> None:
    assert recipe_differences({"a": [1, 2], "b": 1}, {"a": [1], "c": 2}) == [
        "a: was [1, 2], is [1]",
        "b: was 1, is None",
        "c: was None, is 2",
    ]


def test_a_key_that_came_later_counts_as_its_default(tmp_path: Path) -> None:
    """A checkpoint of a version without `train.adam_eps`, `device` of judges and a section."""
    recipe = load_recipe(write_recipe(tmp_path))
    now = comparable(recipe)
    chosen = recipe.model_dump(mode="json", exclude_defaults=True)
    old = comparable(recipe)
    old["train"] = {k: v for k, v in old["train"].items() if k != "adam_eps"}
    old["rewards"] = [{k: v for k, v in one.items() if k != "device"} for one in old["rewards"]]
    old = {k: v for k, v in old.items() if k != "rollout"}
    assert recipe_differences(old, now)
    assert not recipe_differences(with_new_keys(old, now, chosen), now)


def test_a_key_that_came_later_and_is_set_is_a_difference(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path), ["train.adam_eps=1e-6"])
    now = comparable(recipe)
    chosen = recipe.model_dump(mode="json", exclude_defaults=True)
    old = comparable(recipe)
    old["train"] = {k: v for k, v in old["train"].items() if k != "adam_eps"}
    kept = with_new_keys(old, now, chosen)
    assert recipe_differences(kept, now) == ["train.adam_eps: was None, is 1e-06"]
    fewer = with_new_keys({"rewards": [{"a": 1}, {"a": 2}]}, {"rewards": [{"a": 1, "b": 3}]}, {})
    assert fewer == {"rewards": [{"a": 1, "b": 3}, {"a": 2}]}


def test_the_refusal_lists_the_differences() -> None:
    told = changed_recipe(Path("run/recipe.yaml"), ["seed: was 3, is 4"])
    assert told.startswith("run/recipe.yaml: the recipe has changed since the run began")
    assert "\n  seed: was 3, is 4\n" in told
    assert told.endswith("start a new run with another output")


def test_versions_of_what_decides_numbers() -> None:
    import torch

    release, _, _ = versions()["torch"].partition("+")  # metadata may lack the build
    assert release == torch.__version__.partition("+")[0]

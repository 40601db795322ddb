"""The keys of a judge that is trained on, and their old names."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from reward_tuning.errors import TuningError
from reward_tuning.files.yaml_text import write_yaml
from reward_tuning.schema.judge_kinds import KINDS, AestheticSection
from reward_tuning.schema.judge_parts import FramesSection
from reward_tuning.schema.judge_roles import (
    HELD_OUT,
    TRAINED,
    FrameRewardSection,
    HeldOutSection,
    RenamedKeyWarning,
    RewardSection,
    rename_reward_keys,
)
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.command_line import command
from tests.reward_tuning.recipes_for_tests import recipe_data

HPS = {"kind": "hps", "checkpoint": "tiny/hps.safetensors"}
LATENT = {"kind": "latent", "checkpoint": "tiny/latent-clip.safetensors"}
IGNORED = "ignore::reward_tuning.schema.judge_roles.RenamedKeyWarning"


def write(folder: Path, **judge: float) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(
        write_yaml({**load_recipe("tiny-drtune-hps").model_dump(), "rewards": [HPS | judge]})
    )
    return path


def test_every_kind_has_both_roles() -> None:
    assert list(TRAINED) == list(HELD_OUT) == list(KINDS)
    for kind, section in KINDS.items():
        frames = issubclass(section, FramesSection)
        assert issubclass(TRAINED[kind], section)
        assert issubclass(TRAINED[kind], RewardSection)
        assert issubclass(TRAINED[kind], FrameRewardSection) == frames
        assert issubclass(HELD_OUT[kind], section)
        assert issubclass(HELD_OUT[kind], HeldOutSection)
        assert {"weight", "std", "target"}.isdisjoint(HELD_OUT[kind].model_fields)


@pytest.mark.parametrize(("old", "new"), [("unit", "std"), ("flatten", "robust_radius")])
def test_the_old_name_of_a_key_is_read_and_warned_of(tmp_path: Path, old: str, new: str) -> None:
    with pytest.warns(RenamedKeyWarning, match=f"`{old}` of a judge is now called `{new}`"):
        recipe = load_recipe(write(tmp_path, **{old: 0.25}))
    assert getattr(recipe.rewards[0], new) == 0.25
    assert recipe == load_recipe(write(tmp_path, **{new: 0.25}))
    with pytest.warns(RenamedKeyWarning):
        validated = Recipe.model_validate(recipe_data(rewards=[HPS | {old: 0.25}]))
    assert getattr(validated.rewards[0], new) == 0.25


@pytest.mark.filterwarnings(IGNORED)
def test_an_override_replaces_the_value_under_either_name(tmp_path: Path) -> None:
    for name in ("std", "unit"):
        path = write(tmp_path, std=0.25)
        assert load_recipe(path, [f"rewards.0.{name}=0.5"]).rewards[0].std == 0.5
        path = write(tmp_path, unit=0.25)
        assert load_recipe(path, [f"rewards.0.{name}=0.5"]).rewards[0].std == 0.5
    whole = "rewards.0={kind: hps, checkpoint: tiny/hps.safetensors, unit: 0.125}"
    assert load_recipe(path, [whole]).rewards[0].std == 0.125


def test_both_names_at_once_are_a_mistake(tmp_path: Path) -> None:
    said = "`unit` is the old name of `std`, and both are given; remove one"
    with pytest.raises(TuningError, match=said):
        load_recipe(write(tmp_path, unit=0.25, std=0.5))
    with pytest.raises(ValidationError, match=said):
        Recipe.model_validate(recipe_data(rewards=[HPS | {"unit": 0.25, "std": 0.5}]))


def test_a_judge_without_the_new_key_refuses_the_old_one() -> None:
    latent = recipe_data(method={"kind": "prfl"}, rewards=[LATENT | {"flatten": 0.1}])
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(latent)
    (error,) = caught.value.errors()
    assert (error["loc"], error["type"]) == (
        ("rewards", 0, "latent", "flatten"),
        "extra_forbidden",
    )
    held_out = recipe_data(evaluation__held_out_rewards=[HPS | {"unit": 0.1}])
    with pytest.raises(ValidationError, match=r"held_out_rewards.0.hps.unit\n"):
        Recipe.model_validate(held_out)


@pytest.mark.filterwarnings(IGNORED)
def test_raw_recipes_are_renamed_in_a_copy() -> None:
    both = {"kind": "clip", "unit": 1.0, "std": 1.0}
    raw = {"seed": 1, "rewards": [HPS | {"unit": 2.0, "flatten": 0.1}, both, "no judge"]}
    renamed = rename_reward_keys(raw)
    assert renamed["rewards"] == [HPS | {"std": 2.0, "robust_radius": 0.1}, both, "no judge"]
    assert "unit" in raw["rewards"][0]  # type: ignore[index]
    assert rename_reward_keys({"rewards": None}) == {"rewards": None}


def test_the_command_line_prints_the_warning_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = command(capsys)("validate", write(tmp_path, unit=0.25))
    assert ran.code == 0
    line = "warning: the key `unit` of a judge is now called `std`; rename it in the recipe\n"
    assert ran.err == line


def test_the_loader_gets_no_key_of_the_role() -> None:
    trained = TRAINED["motion_flow"].model_validate({"kind": "motion_flow", "std": 2.0})
    assert trained.loader_options() == {"energy": 5.0, "chunk": None}


AESTHETIC = {"kind": "aesthetic", "checkpoint": "tiny/aesthetic.safetensors"}


def test_training_and_held_out_judges_are_of_the_kinds_models() -> None:
    recipe = Recipe.model_validate(recipe_data(rewards=[AESTHETIC | {"tower": "clip-vit-l-14"}]))
    (reward,), (held_out,) = recipe.rewards, recipe.evaluation.held_out_rewards
    assert isinstance(reward, RewardSection)
    assert isinstance(reward, AestheticSection)
    assert isinstance(held_out, HeldOutSection)
    assert reward.files == {"checkpoint": AESTHETIC["checkpoint"], "tower": "clip-vit-l-14"}
    assert reward.loader_options() == {
        "checkpoint": AESTHETIC["checkpoint"],
        "tower": "clip-vit-l-14",
        "architecture": None,
        "chunk": None,
        "dtype": "float32",
        "gradient_checkpointing": False,
        "preprocess": "own",
        "sha256": None,
    }
    with pytest.raises(ValidationError, match="weight"):
        type(held_out).model_validate(held_out.model_dump() | {"weight": 1.0})


def test_an_override_of_a_former_key_without_effect_is_dropped() -> None:
    """`flatten: 0.0` was once a key of every kind; a judge of latents has no new name for it."""
    source = "tiny-prfl-latent"
    recipe = load_recipe(source, ["rewards.0.flatten=0.0"])
    assert recipe == load_recipe(source)
    with pytest.raises(TuningError, match=r"rewards\.0\.flatten: unknown key \(got 0\.1\)"):
        load_recipe(source, ["rewards.0.flatten=0.1"])

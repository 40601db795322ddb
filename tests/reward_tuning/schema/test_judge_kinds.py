"""Sections of kinds: their keys, and that their loaders take them."""

import inspect
from typing import Any

import pytest
from pydantic import ValidationError

from reward_tuning.schema.judge_kinds import KINDS
from reward_tuning.schema.judge_parts import FramesSection
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import recipe_data


def first_error(**changes: Any) -> tuple[tuple[int | str, ...], str]:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(recipe_data(**changes))
    found = caught.value.errors()
    assert len(found) == 1, found
    return found[0]["loc"], found[0]["msg"]


HPS = {"kind": "hps", "checkpoint": "hps-v2.1"}

AESTHETIC = {"kind": "aesthetic", "checkpoint": "tiny/aesthetic.safetensors"}

LATENT = {"kind": "latent", "checkpoint": "tiny/latent-clip.safetensors"}

CLEAN = {"positive": "a clean picture: {prompt}", "negative": "a torn picture: {prompt}"}


def test_each_kind_takes_its_own_keys_and_no_others() -> None:
    own = {
        "hps": {"architecture", "relative", "preprocess", "prompt"},
        "clip": {"architecture", "relative", "prompt"},
        "aesthetic": {"architecture", "tower", "preprocess"},
        "latent": set(),
    }
    network = {"checkpoint", "sha256", "frames", "over_frames", "chunk", "grayscale"}
    network |= {"dtype", "gradient_checkpointing", "device"}
    for kind, section in KINDS.items():
        if kind not in own:
            continue
        shared = {"checkpoint", "sha256", "dtype"} if kind == "latent" else network
        assert set(section.model_fields) == {"kind", "name"} | shared | own[kind], kind
    latent = {"method": {"kind": "prfl"}, "rewards": [LATENT | {"robust_radius": 0.1}]}
    for changes, key in (
        ({"rewards": [HPS | {"tower": "x/y/z"}]}, "tower"),
        ({"rewards": [AESTHETIC | {"relative": CLEAN}]}, "relative"),
        (latent, "robust_radius"),
    ):
        where, told = first_error(**changes)
        kind = changes["rewards"][0]["kind"]  # type: ignore[index]
        assert where == ("rewards", 0, kind, key)
        assert told == "Extra inputs are not permitted"
    where, told = first_error(rewards=[HPS | {"relative": CLEAN | {"negative": "torn"}}])
    assert where == ("rewards", 0, "hps", "relative", "negative")
    assert "write {prompt} where" in told


NOT_LOADED = {"kind", "name", "frames", "over_frames", "chunk", "sha256", "grayscale", "prompt"}
NOT_LOADED |= {"device"}  # the keyword is the run's where the recipe names none

NOT_IN_RECIPES = {kind: {"architecture"} for kind in ("image_reward", "mps")}
NOT_IN_RECIPES |= {"qwen_critic": {"model"}}


def test_kinds_keys_are_the_loaders_keywords() -> None:
    from rewards.loading import KINDS as LOADED
    from rewards.loading import loader_keywords

    assert [kind for kind in KINDS if kind != "latent"] == list(LOADED)
    for kind in LOADED:
        keywords = loader_keywords(kind)
        keys = set(KINDS[kind].model_fields) - NOT_LOADED
        elsewhere = {"device", "folder", "pool"} | NOT_IN_RECIPES.get(kind, set())
        assert keys == set(keywords) - elsewhere, kind
        assert issubclass(KINDS[kind], FramesSection)
        for key in keys - {"checkpoint"}:
            if KINDS[kind].model_fields[key].is_required():
                assert keywords[key] is inspect.Parameter.empty, key
                continue
            default = KINDS[kind].model_fields[key].get_default(call_default_factory=True) or None
            assert default in (keywords[key] or None, "float32"), key

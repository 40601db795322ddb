"""The schema: what is allowed, what is refused, what a default means elsewhere."""

import sys
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from reward_tuning.gradient.methods.drtune import DRTune
from reward_tuning.schema.mistakes import key_paths, members
from reward_tuning.schema.recipe import Recipe
from reward_tuning.section import Section
from tests.reward_tuning.recipes_for_tests import recipe_data


def first_error(**changes: Any) -> tuple[tuple[int | str, ...], str]:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(recipe_data(**changes))
    found = caught.value.errors()
    assert len(found) == 1, found
    return found[0]["loc"], found[0]["msg"]


def test_recipe_keeps_what_it_was_given() -> None:
    recipe = Recipe.model_validate(recipe_data())
    assert recipe.seed == 3
    assert recipe.sampling.width == 96
    assert isinstance(recipe.method, DRTune)
    assert recipe.rewards[0].weight == 2.0
    assert recipe.train.learning_rate == 3e-4
    assert recipe.lora.alpha == 4.0


def test_top_level_sections_are_the_contract() -> None:
    assert list(Recipe.model_fields) == [
        "seed",
        "output",
        "tracking",
        "generator",
        "prompts",
        "sampling",
        "rollout",
        "method",
        "rewards",
        "lora",
        "train",
        "guards",
        "evaluation",
    ]


def test_recipe_is_frozen() -> None:
    recipe = Recipe.model_validate(recipe_data())
    with pytest.raises(ValidationError):
        recipe.train.steps = 3


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", True),
        ("train__steps", True),
        ("train__steps", 6.0),
        ("train__steps", "6"),
        ("train__steps", 0),
        ("train__learning_rate", True),
        ("train__learning_rate", "3e-4"),
        ("train__learning_rate", 0.0),
        ("train__learning_rate", float("nan")),
        ("train__max_grad_norm", float("inf")),
        ("train__ema_decay", 1.0),
        ("train__gradient_checkpointing", "yes"),
        ("train__gradient_checkpointing", 1),
        ("train__warmup_steps", -1),
        ("sampling__guidance_scale", 0.5),
        ("sampling__guidance_steps", [0.9, 0.2]),
        ("sampling__guidance_steps", [0.5, 1.5]),
        ("evaluation__guidance_steps", [0.5, 0.5]),
        ("sampling__negative", "off"),
        ("sampling__negative_prompt", None),
        ("generator__dtype", "float64"),
        ("generator__checkpoint", ""),
        ("lora__targets", "attn"),
        ("lora__targets", []),
        ("lora__targets", [3]),
        ("lora__rank", 0),
        ("rewards", []),
        ("output", 7),
    ],
)
def test_wrong_values_are_refused(path: str, value: Any) -> None:
    assert first_error(**{path: value})[0] == tuple(path.split("__"))


def test_labels() -> None:
    recipe = Recipe.model_validate(
        recipe_data(
            rewards=[
                {"kind": "hps", "checkpoint": "hps-v2.1"},
                {"kind": "hps", "checkpoint": "hps-v2", "name": "old"},
            ]
        )
    )
    assert [judge.label for judge in recipe.rewards] == ["hps", "old"]
    assert [judge.label for judge in recipe.evaluation.held_out_rewards] == ["clip_held_out"]


HPS = {"kind": "hps", "checkpoint": "hps-v2.1"}
LATENT = {"kind": "latent", "checkpoint": "tiny/latent-clip.safetensors"}
CLEAN = {"positive": "a clean picture: {prompt}", "negative": "a torn picture: {prompt}"}


@pytest.mark.parametrize(
    ("changes", "where", "told"),
    [
        ({"method__active_steps": 17}, ("method", "active_steps"), "sampling.steps = 16"),
        ({"rewards": [HPS | {"frames": 10}]}, ("rewards", 0, "frames"), "a clip has 9 frames"),
        (
            {"train__steps_at_once": 2, "train__normalise_steps": True},
            ("train", "steps_at_once"),
            "each step's own gradient",
        ),
        (
            {"train__keep_graphs": 2, "rollout": {"cache": 0.1}},
            ("train", "keep_graphs"),
            "cannot be combined with rollout.cache and sampling.negative: detached",
        ),
        (
            {"train__keep_graphs": "auto", "rollout": {"cache": 0.1}},
            ("train", "keep_graphs"),
            "the positive one alone",
        ),
        (
            {"train__keep_graphs": 2, "train__keep_graphs_memory": 4.0},
            ("train", "keep_graphs_memory"),
            "no effect without train.keep_graphs=auto",
        ),
        (
            {"train__anchor": 0.0, "train__anchor_steps": 1},
            ("train", "anchor_steps"),
            "no effect without train.anchor",
        ),
        ({"rewards": [HPS | {"weight": 0.0}]}, ("rewards", 0, "weight"), "leave it out"),
        (
            {"sampling__guidance_range": [4.0, 2.0]},
            ("sampling", "guidance_range"),
            "1 <= lowest <= highest",
        ),
        (
            {"sampling__divide_by_guidance": False, "sampling__negative": "joint"},
            ("sampling", "divide_by_guidance"),
            "has no effect with sampling.negative: joint",
        ),
        (
            {"sampling__guidance_range": [1.0, 2.0], "sampling__negative": "none"},
            ("sampling", "guidance_range"),
            "without guidance",
        ),
        (
            {"sampling__guidance_steps": [0.2, 0.9], "sampling__negative": "none"},
            ("sampling", "guidance_steps"),
            "without guidance",
        ),
        (
            {"sampling__guidance_steps": [0.2, 0.9], "sampling__guidance_scale": 1.0},
            ("sampling", "guidance_steps"),
            "guidance_scale is 1: nothing is guided",
        ),
        (
            {"evaluation__guidance_steps": [0.2, 0.9], "sampling__guidance_scale": 1.0},
            ("evaluation", "guidance_steps"),
            "guidance_scale is 1: nothing is guided",
        ),
        (
            {"train__decoded": "random-window", "train__decoded_latents": 4},
            ("train", "decoded_latents"),
            "has 3 latents",
        ),
        (
            {"train__batch_size": 4, "train__clips_per_prompt": 3},
            ("train", "clips_per_prompt"),
            "not a multiple",
        ),
        ({"train__true_decoder_every": 4}, ("train", "true_decoder_every"), "decodes with the VAE"),
        ({"train__small_decoder": "a.safetensors"}, ("train", "small_decoder"), "nothing uses it"),
        (
            {"method": {"kind": "prfl"}, "rewards": [LATENT], "train__decoder": "small"},
            ("train", "decoder"),
            "decodes nothing in training",
        ),
        ({"train__repulsion": 0.1}, ("train", "repulsion"), "clips_per_prompt of 2 or more"),
        (
            {"prompts__held_out": "train.txt"},
            ("prompts", "held_out"),
            "is the same file as prompts.train",
        ),
        ({"rewards": [LATENT]}, ("rewards", 0, "kind"), "which only method prfl provides"),
        ({"method": {"kind": "prfl"}}, ("rewards", 0, "kind"), "accepts only kind latent"),
        (
            {"evaluation__held_out_rewards": [LATENT]},
            ("evaluation", "held_out_rewards", 0, "kind"),
            "sees decoded frames, as people do",
        ),
        ({"rewards": [HPS, HPS]}, ("rewards", 1, "name"), "rewards.0 has the same name"),
        (
            {"rewards": [HPS | {"frames": 3, "over_frames": {"kind": "random", "count": 4}}]},
            ("rewards", 0, "over_frames", "count"),
            "the judge sees 3 frames",
        ),
        (
            {
                "evaluation__held_out_rewards": [
                    {"kind": "clip", "checkpoint": "x"}
                    | {"over_frames": {"kind": "random", "count": 4}}
                ]
            },
            ("evaluation", "held_out_rewards", 0, "over_frames", "kind"),
            "only in training",
        ),
        (
            {"rewards": [HPS | {"relative": CLEAN | {"negative": CLEAN["positive"]}}]},
            ("rewards", 0, "relative"),
            "the same text",
        ),
        (
            {"evaluation__held_out_rewards": [HPS]},
            ("evaluation", "held_out_rewards", 0, "checkpoint"),
            "is trained on",
        ),
        (
            {"evaluation__held_out_rewards": [{"kind": "clip", "checkpoint": "x", "name": "hps"}]},
            ("evaluation", "held_out_rewards", 0, "name"),
            "rewards.0 has the same name",
        ),
        (
            {"evaluation__primary": "clip_held_ot"},
            ("evaluation", "primary"),
            "did you mean clip_held_out?",
        ),
    ],
)
def test_conflicts(changes: dict[str, Any], where: tuple[Any, ...], told: str) -> None:
    place, message = first_error(**changes)
    assert place == where
    assert told in message


"""Sizes without a name: files of other than the published sizes say them themselves."""


def test_every_key_is_described() -> None:
    def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
        inner = [m for f in model.model_fields.values() for m in members(f.annotation)]
        return [model, *(found for one in inner for found in sections(one))]

    for section in sections(Recipe):
        assert issubclass(section, Section)
        for name, field in section.model_fields.items():
            if name != "kind" and not members(field.annotation):
                assert field.description, f"{section.__name__}.{name}"


def test_key_paths_reach_into_lists_and_unions() -> None:
    paths = {".".join(map(str, path)) for path in key_paths([Recipe])}
    assert {
        "train.steps",
        "method.nested",
        "method.early_stop",
        "rewards.0.weight",
        "evaluation.held_out_rewards.0.kind",
    } <= paths


def test_recipe_does_not_import_torch() -> None:
    import subprocess

    code = "import sys, reward_tuning.schema.loading; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ({"kind": "refl"}, "method refl stops at a step"),
        ({"kind": "drtune", "active_steps": 4}, "set method.early_stop=false"),
        ({"kind": "draft_lv"}, "afresh"),
        ({"kind": "direct_align"}, "afresh"),
    ],
)
def test_only_an_end_can_be_noised_again(method: dict[str, Any], reason: str) -> None:
    where, text = first_error(method=method, train__restarts=2)
    assert where == ("train", "restarts")
    assert reason in text
    end = {"kind": "drtune", "active_steps": 4, "early_stop": False}
    Recipe.model_validate(recipe_data(method=end, train__restarts=2))


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ({"kind": "refl"}, "the stop of the rollout decides which"),
        ({"kind": "draft_lv"}, "afresh"),
        ({"kind": "direct_align"}, "afresh"),
    ],
)
def test_sets_of_one_rollout_share_its_reward(method: dict[str, Any], reason: str) -> None:
    where, text = first_error(method=method, train__active_sets=2)
    assert where == ("train", "active_sets")
    assert reason in text
    for early_stop in (False, True):
        drtune = {"kind": "drtune", "active_steps": 4, "early_stop": early_stop}
        Recipe.model_validate(recipe_data(method=drtune, train__active_sets=2))


@pytest.mark.parametrize("kind", ["leapalign", "flowbp_lagrange"])
def test_leaps_weigh_clips_anew(kind: str) -> None:
    where, text = first_error(method={"kind": kind}, train__active_sets=2)
    assert where == ("train", "active_sets")
    assert "leap_floor=null" in text
    Recipe.model_validate(recipe_data(method={"kind": kind}, train__restarts=2))

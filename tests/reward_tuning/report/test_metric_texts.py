"""Every number of whole runs has a text, and every text a number: docs/metrics.md says all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from base_model.tiny.captions import every_caption
from base_model.tiny.scenes import FRAMES, SIDE
from reward_tuning.distil.trainer import distil
from reward_tuning.evidence.evaluating import evaluate_adapters
from reward_tuning.evidence.request import EvaluationRequest
from reward_tuning.finetune.trainer import finetune
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.report.judge_texts import JUDGE_SCORE, JUDGE_TEXTS
from reward_tuning.report.measure_texts import MEASURES
from reward_tuning.report.metric_texts import (
    METRICS,
    MetricText,
    Place,
    find_metric,
    metric_text,
    number_keys,
)
from reward_tuning.tuning.evaluation import clip_scores
from reward_tuning.tuning.trainer import run
from scripts.metric_texts import PAGE, page
from scripts.recipe_keys import page as recipe_keys_page
from tests.reward_tuning.distil import few_steps
from tests.reward_tuning.finetune.clip_folder import small_recipe, write_world_of_clips
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

TEXTS = [metric.text for metric in METRICS] + [*MEASURES.values(), *JUDGE_TEXTS.values()]
TEXTS_OR_NULL = {"questions[].category", "sides[].adapter", "sides[].adapter_sha256"}
EVERYTHING = (
    "train.anchor=0.1",
    "train.replay={weight: 0.5, clips: 3}",
    "train.steps=2",
    "train.updates_per_rollout=2",
    "train.reuse_limit=1.0",
    "train.clips_per_prompt=2",
    "train.group={clips: 3}",
    "evaluation.guidance_steps=[0.0, 0.9]",
    "guards.every=1",
    "guards.drift={action: rollback, high: 1e-9}",
)
MATCHED = (
    "method={kind: awm}",
    "train.clips_per_prompt=2",
    "train.steps=1",
    "evaluation.prompts=2",
    "evaluation.seeds=1",
)

ESTIMATED = (
    "rewards=[{kind: sharpness, gradient: group}]",
    "train.clips_per_prompt=2",
    "train.steps=1",
    "evaluation.prompts=2",
    "evaluation.seeds=1",
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Place, list[Any]]]:
    """The rows and files of a reward tuning with everything on and its sides, and of a fine-tuning.

    The guards roll back at the first step and stop at the last.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        world = write_world(tmp_path_factory.mktemp("world"))
        tuned = tmp_path_factory.mktemp("runs") / "tuned"
        run(tiny_recipe(world, tuned, *EVERYTHING))
        matched = tmp_path_factory.mktemp("runs") / "matched"
        run(tiny_recipe(world, matched, *MATCHED))
        estimated = tmp_path_factory.mktemp("runs") / "estimated"
        run(tiny_recipe(world, estimated, *ESTIMATED))
        sides = tmp_path_factory.mktemp("sides")
        request = EvaluationRequest([tuned], clips=0)
        evaluated = evaluate_adapters(request, sides, torch.device("cpu"))
        clips = write_world_of_clips(tmp_path_factory.mktemp("clips"))
        shown = tmp_path_factory.mktemp("runs") / "shown"
        finetune(small_recipe(clips, shown, "train.sample_every=2", "train.steps=3"))
        few = tmp_path_factory.mktemp("runs") / "few"
        distil(few_steps.small_recipe(world, few, "train.steps=1", "evaluation.prompts=2"))
    yield {
        "run": [
            row for made in (tuned, matched, estimated) for row in rows(made / "metrics.jsonl")
        ],
        "guards": rows(tuned / "guards.jsonl"),
        "evaluation": [json.loads((tuned / "evaluation.json").read_text()), evaluated],
        "finetune": rows(shown / "metrics.jsonl"),
        "distil": rows(few / "metrics.jsonl"),
        "finetune.json": [json.loads((shown / "finetune.json").read_text())],
    }


def rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_every_number_has_a_text(recorded: dict[Place, list[Any]]) -> None:
    keys = [(place, key) for place, all_rows in recorded.items() for key in number_keys(all_rows)]
    named = {(place, key.removeprefix("[].")) for place, key in keys}
    assert len(named) > 80
    unknown = {(place, key) for place, key in named if find_metric(key, place) is None}
    assert unknown <= {("evaluation", key) for key in TEXTS_OR_NULL}


@pytest.mark.slow
def test_every_text_has_a_number(recorded: dict[Place, list[Any]]) -> None:
    found = {
        find_metric(key.removeprefix("[]."), place)
        for place, all_rows in recorded.items()
        for key in number_keys(all_rows)
    }
    unused = {metric for metric in METRICS if metric not in found}
    # The oracle, and so the renders, exist in the embedded world alone.
    expected = {find_metric("rendered/hps", "evaluation")}
    # A judge must rise on 24 prompts or more.
    expected |= {find_metric("sides[].gain_kept/hps", "evaluation")}
    assert unused == expected


@pytest.mark.slow
def test_every_measure_has_a_text(recorded: dict[Place, list[Any]]) -> None:
    evaluation, evaluated = recorded["evaluation"]
    judges = {*evaluation["trained_on"], *evaluation["never_trained_on"]}
    text = every_caption()[0]
    frames = torch.rand(1, FRAMES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    of_oracle = clip_scores(frames, None, [Prompt(text, text)], [], oracle=True)
    of_evaluate = {name for side in evaluated["sides"] for name in side["means"]}
    named = {*evaluation["base"], *of_oracle, *of_evaluate} - judges
    assert {name for name in named if not name.startswith("sharpness_")} == {
        name for name in MEASURES if name != "sharpness_JUDGE"
    }
    assert "sharpness_clip" in named
    assert metric_text("sharpness_clip") is MEASURES["sharpness_JUDGE"]


def test_where_two_files_have_the_same_key() -> None:
    assert "judges' losses" in metric_text("loss").what
    assert "flow-matching loss" in metric_text("loss", "finetune").what
    assert metric_text("motion") is MEASURES["motion"]
    assert "latent frames" in metric_text("motion", "run").what
    assert metric_text("motion", "guards").unit == "ratio"
    assert metric_text("reward/hps").better == "higher"
    assert metric_text("step-03/grad_norm") is metric_text("active_steps[].grad_norm")


def test_a_judge_is_found_by_its_kind_or_its_label() -> None:
    assert metric_text("hps") is JUDGE_TEXTS["hps"]
    assert metric_text("mine", kind="hps") is JUDGE_TEXTS["hps"]
    text = metric_text("mine")
    assert text.what.startswith("Score of the judge mine.")
    assert text.unit == JUDGE_SCORE.unit


def test_the_page_is_current() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), "run: python -m scripts.metric_texts"


def test_the_page_names_every_key() -> None:
    named = re.findall(r"^\| `([^`]+)` \|", page(), flags=re.MULTILINE)
    assert len(named) == len(TEXTS)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.what[:30])
def test_a_text_is_whole(text: MetricText) -> None:
    assert text.what.endswith(".")
    assert all(value and not value.endswith(".") for value in (text.unit, text.healthy))
    assert text.remedy
    assert not text.remedy.endswith(".")


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.what[:30])
def test_a_text_names_keys_that_exist(text: MetricText) -> None:
    words = " ".join((text.what, text.unit, text.healthy, text.remedy))
    named = set(re.findall(r"`([a-z_]+\.[\w.]+)", words))
    assert named <= set(recipe_keys())


@cache
def recipe_keys() -> list[str]:
    """Every key of a recipe with its section, from the generated reference."""
    found, section = [], ""
    for line in recipe_keys_page().splitlines():
        if heading := re.match(r"### `([\w.]+)`", line):
            section = heading[1]
        elif row := re.match(r"\| `(\w+)` \|", line):
            found.append(f"{section}.{row[1]}")
    return found

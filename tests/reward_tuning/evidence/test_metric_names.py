"""Names of values in the cache: they change with what decides the value, and with that alone."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from base_model.tiny.captions import every_caption, parse_caption
from base_model.tiny.oracle import judge as oracle_judge
from base_model.tiny.render import render
from reward_tuning.errors import TuningError
from reward_tuning.evidence.metric_names import metric_names
from reward_tuning.evidence.request import EvaluationRequest
from reward_tuning.evidence.setup import resolve
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.schema.judge_roles import HELD_OUT
from reward_tuning.schema.primary import MEASURES, ORACLE
from reward_tuning.tuning.clip_measures import measures


def test_names_of_a_run(finished: Path) -> None:
    setup = resolve(EvaluationRequest([finished]))
    names = metric_names(setup, sharpness=True)
    assert list(names.sharpened) == ["clip"]
    assert (names.seer, names.oracle) == ("clip_held_out", False)
    a, b = (names.of_clip(Prompt("long", text)) for text in ("a", "b"))
    assert set(a) == {
        "clip",
        "clip_held_out",
        "motion",
        "brightness",
        "contrast",
        "saturation",
        "sharpness_clip",
        "feature_diversity",
    }
    assert len(set(a.values())) == len(a)
    # what a judge reads is part of the name; measures of pixels read nothing
    assert {name for name in a if a[name] != b[name]} == {"clip", "clip_held_out", "sharpness_clip"}
    renamed = replace(
        setup, judges=[judge.model_copy(update={"name": judge.label}) for judge in setup.judges]
    )
    assert metric_names(renamed, sharpness=True).of_clip(Prompt("long", "a")) == a


def test_the_measures_are_those_that_clips_have() -> None:
    """A measure that is missing from the list would be measured and thrown away."""
    assert set(measures(torch.rand(1, 3, 3, 8, 8))) == set(MEASURES)
    caption = every_caption()[0]
    seen = oracle_judge(render([parse_caption(caption)[0]], random.Random(0)), [caption])
    assert {f"oracle_{name}" for name in seen.right} == set(ORACLE[1:-1])


@pytest.mark.parametrize("primary", ["diversity", "oracle", "feature_diversity"])
def test_the_metric_that_decides_is_measured(finished: Path, primary: str) -> None:
    setup = resolve(EvaluationRequest([finished], primary=primary, seeds=2))
    if primary == "feature_diversity":
        assert "feature_diversity" in metric_names(setup, sharpness=True).of_clip(setup.prompts[0])
        setup = replace(setup, seeds=1)
    with pytest.raises(TuningError, match=f"--primary: got '{primary}', which is not measured"):
        metric_names(setup, sharpness=True)


def test_without_what_it_needs(finished: Path) -> None:
    setup = resolve(EvaluationRequest([finished]))
    assert metric_names(replace(setup, seeds=1), sharpness=True).seer is None
    assert list(metric_names(setup, sharpness=False).sharpened) == []
    flicker = HELD_OUT["flicker"].model_validate({"kind": "flicker"})
    only = replace(
        setup, judges=[flicker], trained_on=[], never_trained_on=[flicker.label], primary=None
    )
    names = metric_names(only, sharpness=True)
    assert names.seer is None  # it has no image features
    assert list(names.sharpened) == [flicker.label]  # nobody trained: all of them

"""Names of values in the cache: they change with what decides the value, and with that alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reward_tuning.evidence.metric_names import metric_names
from reward_tuning.evidence.request import Request
from reward_tuning.evidence.setup import resolve
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.schema.judge_roles import HELD_OUT


def test_names_of_a_run(finished: Path) -> None:
    setup = resolve(Request([finished]))
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


def test_without_what_it_needs(finished: Path) -> None:
    setup = resolve(Request([finished]))
    assert metric_names(replace(setup, seeds=1), sharpness=True).seer is None
    assert list(metric_names(setup, sharpness=False).sharpened) == []
    flicker = HELD_OUT["flicker"].model_validate({"kind": "flicker"})
    only = replace(
        setup, judges=[flicker], trained_on=[], never_trained_on=[flicker.label], primary=None
    )
    names = metric_names(only, sharpness=True)
    assert names.seer is None  # it has no image features
    assert list(names.sharpened) == [flicker.label]  # nobody trained: all of them

"""Ranges of a fine-tuning recipe's keys; the published trainer's values are the defaults."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from reward_tuning.finetune.sections import (
    BaseSection,
    DataSection,
    DropoutSection,
    FinetuneTrainSection,
    FlowSection,
    MasksSection,
    SamplesSection,
)
from reward_tuning.section import Section

NEEDED: dict[type[Section], dict[str, Any]] = {
    BaseSection: {"checkpoint": "tiny"},
    DataSection: {"metadata": "clips.csv"},
    FinetuneTrainSection: {"steps": 10, "batch_size": 2},
}


def test_the_defaults_are_the_published_values() -> None:
    """EasyAnimate's `scripts/train.py` and its shell scripts."""
    data, flow, dropout = DataSection(metadata="c.csv"), FlowSection(), DropoutSection()
    assert (data.stride, data.frames, data.latents) == (3, 49, "sample")
    assert (flow.most_error, flow.shift, flow.motion_share) == (50.0, 0.0, 0.0)
    assert (dropout.text, dropout.control, dropout.reference, dropout.zeroed) == (
        0.1,
        0.2,
        0.2,
        0.9,
    )


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        (BaseSection, {"channels": 17}),
        (DataSection, {"frames": 6}),
        (DataSection, {"sides": [16]}),
        (DataSection, {"tokens": 4096}),
        (DataSection, {"stride": 0}),
        (DataSection, {"held_out": -1}),
        (FlowSection, {"logit_std": 0.0}),
        (FlowSection, {"motion_share": 1.5}),
        (FlowSection, {"shift": 3.5}),
        (FlowSection, {"most_error": 0.0}),
        (DropoutSection, {"text": -0.1}),
        (MasksSection, {"video": [0.1] * 9}),
        (MasksSection, {"image": [1.0]}),
        (FinetuneTrainSection, {"first_norm_ratio": 0.5}),
        (FinetuneTrainSection, {"autocast": "float16"}),
        (SamplesSection, {"guidance_scale": 0.5}),
        (SamplesSection, {"steps": 0}),
    ],
)
def test_what_is_out_of_range_is_refused(section: type[Section], wrong: dict[str, Any]) -> None:
    needed = NEEDED.get(section, {})
    section(**needed)
    (name,) = wrong
    with pytest.raises(ValidationError) as refused:
        section(**needed, **wrong)
    assert {error["loc"][0] for error in refused.value.errors()} == {name}

"""The table of kinds against the published configs' channels."""

import re
from typing import get_args

import pytest

from base_model.core.kinds import KINDS, kind_named, kind_of
from base_model.errors import GeneratorError
from reward_tuning.finetune.sections import BaseSection


def test_the_published_channels() -> None:
    channels = {"text-to-video": 16, "inpaint": 33, "control": 48, "camera": 38}
    assert {name: kind_named(name).channels for name in channels} == channels
    assert {kind_of(number).name: number for number in KINDS} == channels
    assert [kind.name for kind in KINDS.values() if kind.controlled] == ["control", "camera"]


def test_a_recipe_may_ask_for_every_kind() -> None:
    literal, _ = get_args(BaseSection.model_fields["channels"].annotation)
    assert set(get_args(literal)) == set(KINDS)


def test_an_unknown_number_names_the_known_ones() -> None:
    known = re.escape("16 (text-to-video), 33 (inpaint), 48 (control), 38 (camera)")
    with pytest.raises(GeneratorError, match=rf"takes 32 input channels; .* has {known}"):
        kind_of(32)


def test_an_input_without_channels_is_refused() -> None:
    kind_named("inpaint").require(["image", "mask"])
    with pytest.raises(
        GeneratorError,
        match=r"33 input channels, the inpaint kind, which does not take the reference\. Use the "
        r"control checkpoint \(48 channels, EasyAnimateV5\.1-\*-Control\) or camera checkpoint",
    ):
        kind_named("inpaint").require(["image", "reference"])

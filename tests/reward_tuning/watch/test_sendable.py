from __future__ import annotations

import json
from typing import Any

import pytest

from reward_tuning.watch.sendable import DEEPEST, sendable


def test_sound_data_stays_as_it_is() -> None:
    data = {"step": 3, "on": True, "none": None, "of": [1.5, -2, "一只猫 <b>"], "in": {"a": 1e300}}
    assert sendable(data) == data


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400, -(10**400)])
def test_a_number_that_is_none_becomes_null(value: Any) -> None:
    assert sendable({"a": [value, 1]}) == {"a": [None, 1]}


def test_text_that_is_no_unicode_can_be_sent() -> None:
    found = sendable({"\ud800a": ["\udfff"]})
    assert json.dumps(found, ensure_ascii=False).encode()
    assert [key[-1] for key in found] == ["a"]


def test_depth_is_limited() -> None:
    deep: Any = 1
    for _ in range(900):
        deep = {"a": deep}
    found, levels = sendable(deep), 0
    while found is not None:
        found, levels = found["a"], levels + 1
    assert levels == DEEPEST

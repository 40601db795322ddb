from __future__ import annotations

import pytest

from reward_tuning.files.json_text import parsed_json


@pytest.mark.parametrize("text", ['{"a": [1, null]}', b'{"a": [1, null]}'])
def test_json_is_read(text: str | bytes) -> None:
    assert parsed_json(text) == {"a": [1, None]}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ('{"a": ', "Expecting value"),
        ("[" * 100_000, "nested too deeply"),
        (b"\xff\xfe[", "can't decode|Expecting|truncated"),
    ],
)
def test_every_fault_is_a_value_error(text: str | bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parsed_json(text)

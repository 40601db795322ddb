"""Invisible characters are removed from texts, unusable texts reported."""

from __future__ import annotations

import json

import pytest

from reward_tuning.files.clean_text import cleaned, has_lone_surrogate, short_json, text_fault


def test_invisible_marks_are_no_part_of_a_text() -> None:
    assert cleaned("\ufeff\u200b a\u200b red\u2060 star\u200e\u00a0") == "a red star"
    assert cleaned("a\u00a0red so\u00adft\u2028star") == "a red soft star"
    assert cleaned("می\u200cخواهم") == "می\u200cخواهم"  # a joiner between letters has a meaning


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("a fox", None),
        (" \u200b", 'prompt is " \u200b"; expected a text'),
        (3, "prompt is 3; expected a text"),
        ("a\0b", "prompt 'a\\x00b' contains a NUL character; remove it"),
        (
            "a\ud83d",
            "prompt 'a\\ud83d' contains an invalid Unicode character (lone surrogate); give the "
            "text as UTF-8",
        ),
    ],
)
def test_faults_of_a_text(value: object, fault: str | None) -> None:
    assert text_fault("prompt", value) == fault


def test_a_pair_of_surrogates_in_json_is_a_character() -> None:
    assert not has_lone_surrogate(json.loads('"\\ud83d\\ude00"'))
    assert has_lone_surrogate(json.loads('"\\ud83d"'))


def test_values_in_messages_are_short_and_readable() -> None:
    assert short_json({"a": [1, "猫"]}) == '{"a": [1, "猫"]}'
    assert short_json("x" * 100) == '"' + "x" * 59 + "..."

"""Rows of JSON: an object a line, lists, and values that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_tuning.inputs.prompts import read_prompts
from tests.reward_tuning.files.test_rows import pairs, told, written


def test_one_object_is_a_list_of_one_line(tmp_path: Path) -> None:
    assert pairs(written(tmp_path, "p.json", '{"prompt": "a"}')) == [("a", "a")]
    wanted = "row 1: unknown key `prompts`; did you mean `prompt`?"
    assert wanted in told(read_prompts, written(tmp_path, "p.json", '{"prompts": ["a", "b"]}'))
    wanted = 'is not a list of rows; expected rows such as {"prompt": "..."}'
    assert wanted in told(read_prompts, written(tmp_path, "p.json", "3"))


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ('{"prompt": "a", "seed": %s}' % ("9" * 5000), "a number has too many digits"),
        ('{"prompt": %s}' % ("[" * 100_000), "too deeply nested"),
        ('{"prompt": "a\\u0000b"}', "contains a NUL character"),
        ('{"prompt": "\\ud83d"}', "contains an invalid Unicode character (lone surrogate)"),
        ('{"prompt": "\\u200b\\ufeff"}', "expected a text"),
        ('{"prompt": "a", "image": "%s"}' % ("b" * 300), "too long for a file name"),
        ('{"prompt": "a", "image": "\\ud83d.png"}', "(lone surrogate)"),
        ('{"prompt": "a", "camera": "pan left", "camera_speed": 1e400}', "a number above 0"),
        ('{"prompt": "a", "extend": "b.mp4", "keep_frames": 1%s}' % ("0" * 400), "whole number"),
    ],
)
def test_values_that_once_ended_in_a_traceback(tmp_path: Path, line: str, wanted: str) -> None:
    (tmp_path / "b.mp4").touch()
    for name, content in (("p.jsonl", line), ("p.json", f"[{line}]")):
        assert wanted in told(read_prompts, written(tmp_path, name, content))


def test_a_repeated_key_is_refused_if_it_is_a_column(tmp_path: Path) -> None:
    line = '{"note": 1, "prompt": "a", "note": 2}'
    assert pairs(written(tmp_path, "p.jsonl", line)) == [("a", "a")]
    line = '{"prompt": "a", "prompt": "b"}'
    for name, content in (("p.jsonl", line), ("p.json", f"[{line}]")):
        message = told(read_prompts, written(tmp_path, name, content))
        assert "1: the key `prompt` appears twice; remove one" in message

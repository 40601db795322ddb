"""Which files are prompt lists of VBench; how they are read is in test_prompts.py."""

from pathlib import Path

import pytest

from reward_tuning.inputs.vbench_list import is_vbench_list


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("v.json", '[{"prompt_en": "a", "dimension": ["x"]}]', True),
        ("v.JSON", '[{"prompt_en": "a", "dimension": ["x"]}]', True),
        ("v.jsonl", '[{"prompt_en": "a", "dimension": ["x"]}]', False),
        ("v.json", '[{"prompt": "a", "dimension": ["x"]}]', False),
        ("v.json", '[{"prompt_en": "a"}]', False),
        ("v.json", '{"prompt_en": "a", "dimension": ["x"]}', False),
        ("v.json", '["a"]', False),
        ("v.json", "[]", False),
        ("v.json", "not JSON", False),
        ("v.json", "[" * 100_000, False),
    ],
)
def test_a_list_is_recognised_by_its_content(
    tmp_path: Path, name: str, text: str, expected: bool
) -> None:
    (tmp_path / name).write_text(text)
    assert is_vbench_list(tmp_path / name) is expected


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    assert not is_vbench_list(tmp_path / "gone.json")

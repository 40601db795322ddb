"""YAML 1.2: values, repeated keys, syntax errors, and written data that reads back equal."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_tuning.errors import TuningError
from reward_tuning.files.yaml_text import read_yaml, read_yaml_file, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-2.", -2.0),
        ("6", 6),
        ("-3", -3),
        ("010", 10),
        ("true", True),
        ("off", "off"),
        ("no", "no"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-02", "2024-01-02"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'6'", "6"),
        (".inf", float("inf")),
        ("[1, a]", [1, "a"]),
        ("{a: 1e-3}", {"a": 1e-3}),
    ],
)
def test_yaml_values(text: str, value: Any) -> None:
    found = read_yaml(text)
    assert found == value
    assert type(found) is type(value)


def test_yaml_duplicate_key() -> None:
    with pytest.raises(TuningError, match=r"line 3: the key `a` appears in line 1 already"):
        read_yaml("a: 1\nb: 2\na: 3\n")


def test_yaml_duplicate_key_inside() -> None:
    with pytest.raises(TuningError, match=r"line 2: the key `steps` appears in line 2 already"):
        read_yaml("x: 1\ntrain: {steps: 1, steps: 2}\n")


@pytest.mark.parametrize("text", ["a: [1, 2", "a: b: c", "\tx: 1", "a: !!python/name:os.system"])
def test_yaml_syntax(text: str) -> None:
    with pytest.raises(TuningError, match=r"^line 1, column \d+: not valid YAML"):
        read_yaml(text)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abcdef1.-_", min_size=1), inner),
    max_leaves=8,
)


@given(PLAIN)
def test_yaml_reads_back_what_it_wrote(data: Any) -> None:
    again = read_yaml(write_yaml(data))
    assert again == data
    assert repr(again) == repr(data)  # types as well: 1 is not 1.0, "1e-3" is not 0.001


def test_nested_aliases_are_counted_and_not_expanded() -> None:
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for before, name in pairwise("abcdefghij"):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    with pytest.raises(TuningError, match=r"aliases .* expanded it has more than 100,000 values"):
        read_yaml("\n".join(lines))
    assert read_yaml("a: &a [1, 2]\nb: [*a, *a]") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("é: 1".encode("latin-1"))
    with pytest.raises(TuningError, match=r"a\.yaml: not UTF-8 text \(byte 0\); save it as UTF-8"):
        read_yaml_file(path)
    path.write_text("a: 1\na: 2\n")
    with pytest.raises(TuningError, match=r"a\.yaml: line 2: the key `a` appears in line 1"):
        read_yaml_file(path)

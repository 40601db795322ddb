"""Installed versions against ranges."""

from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from reward_tuning.doctor import versions
from reward_tuning.doctor.facts import Fact

LINES = [
    "torch>=2.6",
    "peft>=0.14",
    "numpy>=1.26",
    "rich>=13.9",
    'tomli>=2.0; python_version < "3.0"',
    'wandb>=0.31; extra == "trackers"',
]


def facts(python_range: str = ">=3.10", **installed: str) -> dict[str, Fact]:
    found = {"torch": "2.15.0+cpu", "peft": "0.21.0", "numpy": "2.3.0", "rich": "14.0"} | installed
    return {
        fact.name: fact
        for fact in versions.version_facts(
            LINES, python_range, lambda name: found.get(name) or None
        )
    }


def test_all_within_their_ranges() -> None:
    found = facts()
    assert {fact.mark for fact in found.values()} == {"ok"}
    assert found["torch"].value == "2.15.0+cpu"
    assert found["other packages"].value == "2 more, each within its range"
    assert "numpy" not in found  # only where it is wrong
    assert "tests" in found["hpsv2"].value


@pytest.mark.parametrize(
    ("name", "version", "value", "todo"),
    [
        ("torch", "2.5.1", "2.5.1, out of the range >=2.6", "pip install 'torch>=2.6'"),
        ("numpy", "1.20", "1.20, out of the range >=1.26", "pip install 'numpy>=1.26'"),
        ("rich", "", "not installed; needs >=13.9", "pip install 'rich>=13.9'"),
    ],
)
def test_what_is_wrong_is_named(name: str, version: str, value: str, todo: str) -> None:
    fact = facts(**{name: version})[name]
    assert (fact.mark, fact.value, fact.todo) == ("problem", value, todo)


def test_development_versions_count_as_newer() -> None:
    assert facts(torch="2.16.0.dev20260101")["torch"].mark == "ok"


def test_python_out_of_its_range() -> None:
    fact = facts(">=3.99")["python"]
    assert fact.mark == "problem"
    assert fact.value.endswith("needs >=3.99")
    assert "make PYTHON=/path/to/python3.99" in fact.todo


def test_the_declared_ranges_are_those_of_this_distribution() -> None:
    found = {fact.name: fact for fact in versions.version_facts()}
    assert found["python"].mark == "ok"
    for name in ("torch", "diffusers", "transformers", "peft", "accelerate", "open_clip_torch"):
        assert found[name].mark == "ok", found[name]


def test_a_source_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(versions, "requires", missing)
    (note,) = [fact for fact in versions.version_facts() if fact.mark == "note"]
    assert note.name == "ranges"
    assert "pip install" in note.todo

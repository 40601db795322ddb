"""The cache of values: what is added stays, what is damaged is named and measured again."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from reward_tuning.evidence.score_cache import ScoreCache
from reward_tuning.progress import ProgressEvent


def test_values_are_added_and_read_back(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores")
    assert cache.values("a") == {}
    cache.add("a", {"x": 0.1, "looks": [1.5, 2.5]})
    cache.add("a", {"y": math.inf, "x": 0.2})
    cache.add("b", {"x": 3.0})
    for again in (cache, ScoreCache(tmp_path / "scores")):
        found = dict(again.values("a"))
        infinite = found.pop("y")
        assert isinstance(infinite, float)
        assert not math.isfinite(infinite)
        assert found == {"x": 0.2, "looks": [1.5, 2.5]}
        assert again.values("b") == {"x": 3.0}


@pytest.mark.parametrize("damage", ["", "{}", "[1]", "cut", "moved", "changed", "[" * 100_000])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    ScoreCache(tmp_path).add("a", {"x": 0.125})
    path = tmp_path / "a.json"
    text = path.read_text()
    name = "b" if damage == "moved" else "a"
    changed = {"cut": text[:-9], "changed": text.replace("0.125", "0.126"), "moved": text}
    (tmp_path / f"{name}.json").write_text(changed.get(damage, damage))
    events: list[ProgressEvent] = []
    cache = ScoreCache(tmp_path, events.append)
    assert cache.values(name) == {}
    (note,) = [event.note for event in events]
    assert f"{tmp_path / name}.json is damaged" in note
    cache.add(name, {"x": 0.5})
    assert ScoreCache(tmp_path).values(name) == {"x": 0.5}

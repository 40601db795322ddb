"""The cache of clips: another clip has another key, a damaged file is named and not used."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.evidence.clip_cache import ClipCache, ClipFacts
from reward_tuning.progress import ProgressEvent
from tests.reward_tuning.full_disk import largest_file

FACTS = ClipFacts(
    "g", "t", "a", 1.0, "a cat", "c", 3, 5, 16, 1.0, 5.0, 0.0, "bad", (9, 64, 64), "float32", None
)
OTHER = {str: "other", float: 0.25, int: 99, tuple: (5, 32, 32), type(None): "int8"}
# Key of FACTS before there were intervals of guidance and caches of steps.
FORMER_KEY = "383c57e93bd5ac8f9789213044f6f8dea6b697cd22a3fdb5ff536174f1b826e8"
LATENTS = torch.arange(32.0).view(2, 4, 2, 2)


@pytest.mark.parametrize("name", [field.name for field in fields(ClipFacts)])
def test_every_fact_is_part_of_the_key(name: str) -> None:
    other = replace(FACTS, **{name: OTHER[type(getattr(FACTS, name))]})
    assert other.key != FACTS.key
    assert replace(other, **{name: getattr(FACTS, name)}).key == FACTS.key


def test_keys_of_former_clips_still_hold() -> None:
    assert FACTS.key == FORMER_KEY


def test_latents_come_back_bit_for_bit(tmp_path: Path) -> None:
    cache = ClipCache(tmp_path / "clips")
    assert cache.read(FACTS.key) is None
    cache.write(FACTS.key, FACTS, LATENTS)
    found = cache.read(FACTS.key)
    assert found is not None
    assert torch.equal(found, LATENTS)
    assert [path.name for path in (tmp_path / "clips").iterdir()] == [f"{FACTS.key}.safetensors"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "of another clip"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    events: list[ProgressEvent] = []
    cache = ClipCache(tmp_path, events.append)
    cache.write(FACTS.key, FACTS, LATENTS)
    path = cache.path(FACTS.key)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-5])
    elif damage == "flipped":
        content[-3] ^= 1
        path.write_bytes(content)
    else:
        path.rename(cache.path("f" * 64))
    key = "f" * 64 if damage == "of another clip" else FACTS.key
    assert cache.read(key) is None
    (note,) = [event.note for event in events]
    assert str(cache.path(key)) in note
    assert "sampling that clip again" in note


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    cache = ClipCache(tmp_path)
    with largest_file(100), pytest.raises(TuningError, match="the same command then continues"):
        cache.write(FACTS.key, FACTS, LATENTS)
    assert list(tmp_path.iterdir()) == []

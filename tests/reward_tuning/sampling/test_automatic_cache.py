"""The automatic cache: on where it is measured or published, off elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from base_model.files.shipped import resolve_checkpoint
from reward_tuning.sampling.automatic_cache import automatic_cache
from reward_tuning.sampling.teacache import PUBLISHED, coefficients_of, shape_of
from reward_tuning.schema.cache_kinds import Taylor, TeaCache

PUBLISHED_CONFIGS = Path(__file__).parents[2] / "published"


def config(path: Path) -> SimpleNamespace:
    return SimpleNamespace(**json.loads(path.read_text(encoding="utf-8")))


def test_the_embedded_checkpoint() -> None:
    tiny = config(Path(resolve_checkpoint("tiny")) / "transformer" / "config.json")
    assert automatic_cache(tiny, 25, compiled=False) == Taylor()
    assert automatic_cache(tiny, 16, compiled=True) == Taylor()
    assert automatic_cache(tiny, 15, compiled=False) is None


@pytest.mark.parametrize(
    "name", ["transformer-7b-control", "transformer-12b-control", "transformer-12b-diffusers"]
)
def test_published_checkpoints(name: str) -> None:
    """The authors' threshold, with their coefficients for the size; a compiler excludes it."""
    published = config(PUBLISHED_CONFIGS / f"{name}.json")
    assert automatic_cache(published, 50, compiled=False) == TeaCache(threshold=0.08)
    assert automatic_cache(published, 50, compiled=True) is None
    assert automatic_cache(published, 9, compiled=False) is None
    highest = {"7b": 1.07862322, "12b": -10.47857366}[name.split("-")[1]]
    assert coefficients_of(shape_of(published))[0] == highest
    assert shape_of(published) in PUBLISHED


def test_any_other_has_none() -> None:
    other = SimpleNamespace(num_layers=12, mmdit_layers=12, num_attention_heads=8)
    assert automatic_cache(other, 50, compiled=False) is None

"""The caches of steps, as recipes and options name them."""

from __future__ import annotations

from typing import Any

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.schema.cache_kinds import (
    CacheSection,
    FirstBlock,
    Taylor,
    TeaCache,
    cache_of,
    cache_text,
)
from reward_tuning.schema.sections import RolloutSection
from tests.reward_tuning.schema.test_sections import first_error


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (None, None),
        (0.1, FirstBlock(threshold=0.1)),
        (1000, FirstBlock(threshold=1000.0)),
        ("teacache", TeaCache(threshold=0.08)),
        ("taylor", Taylor(interval=2, warm_up=4, order=1)),
        ({"kind": "teacache", "threshold": 0.05}, TeaCache(threshold=0.05)),
        ("teacache:0.05", TeaCache(threshold=0.05)),
        ("taylor:3", Taylor(interval=3)),
        ("first-block:0.2", FirstBlock(threshold=0.2)),
        (
            {"kind": "teacache", "coefficients": [1.0, 2.0, 3.0, 4.0, 5.0]},
            TeaCache(coefficients=(1.0, 2.0, 3.0, 4.0, 5.0)),
        ),
        ({"kind": "taylor", "interval": 3}, Taylor(interval=3)),
    ],
)
def test_a_recipe(given: Any, read: CacheSection | None) -> None:
    section = RolloutSection.model_validate({"cache": given})
    assert section.cache == read
    assert RolloutSection.model_validate(section.model_dump(mode="json")).cache == read


@pytest.mark.parametrize(
    ("given", "where", "told"),
    [
        ("teacash", ("rollout", "cache"), "teacash"),
        ("none", ("rollout", "cache"), "allowed: null for no cache, first-block, teacache"),
        ("auto", ("rollout", "cache"), "allowed: null for no cache, first-block, teacache"),
        (True, ("rollout", "cache"), "allowed: first-block, teacache, taylor"),
        ("teacash:1", ("rollout", "cache"), "each also with its number, such as taylor:2"),
        ("taylor:2.5", ("rollout", "cache"), "allowed after `taylor:` is a whole number"),
        ("teacache:much", ("rollout", "cache"), "allowed after `teacache:` is a number"),
        ("taylor:0", ("rollout", "cache", "taylor", "interval"), "1"),
        (0.0, ("rollout", "cache", "first-block", "threshold"), "greater than 0"),
        (
            {"kind": "teacache", "coefficients": [1.0, 2.0, 3.0, 4.0]},
            ("rollout", "cache", "teacache", "coefficients"),
            "required",
        ),
        ({"kind": "taylor", "interval": 0}, ("rollout", "cache", "taylor", "interval"), "1"),
    ],
)
def test_a_recipe_that_is_refused(given: Any, where: tuple[str, ...], told: str) -> None:
    found, text = first_error(rollout={"cache": given})
    assert found[: len(where)] == where
    assert told in text


@pytest.mark.parametrize(
    ("text", "read", "written"),
    [
        ("none", None, "none"),
        ("0.1", FirstBlock(threshold=0.1), "first-block:0.1"),
        ("1e-9", FirstBlock(threshold=1e-9), "first-block:1e-09"),
        ("first-block:0.2", FirstBlock(threshold=0.2), "first-block:0.2"),
        ("teacache", TeaCache(), "teacache:0.08"),
        ("teacache:0", TeaCache(threshold=0.0), "teacache:0"),
        ("taylor", Taylor(), "taylor:2"),
        ("taylor:3", Taylor(interval=3), "taylor:3"),
    ],
)
def test_an_option(text: str, read: CacheSection | None, written: str) -> None:
    assert cache_of(text) == read
    assert cache_text(read) == written
    assert cache_of(written) == read


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tea", "got 'tea'; allowed: auto, none, first-block, teacache, taylor"),
        ("nan", "got 'nan'; allowed: auto"),
        ("inf", "got 'inf'; allowed: auto"),
        ("0", "threshold of first-block is 0; allowed: greater than 0"),
        ("first-block:-1", "threshold of first-block is -1; allowed: greater than 0"),
        ("teacache:", "got 'teacache:'; allowed after `teacache:` is a number"),
        ("teacache:much", "got 'teacache:much'; allowed after `teacache:` is a number"),
        ("taylor:1.5", "got 'taylor:1.5'; allowed after `taylor:` is a whole number"),
        ("taylor:0", "interval of taylor is 0; allowed: greater than or equal to 1"),
    ],
)
def test_an_option_that_is_refused(text: str, told: str) -> None:
    with pytest.raises(TuningError) as caught:
        cache_of(text)
    assert told in str(caught.value)
    assert not str(caught.value).endswith(".")

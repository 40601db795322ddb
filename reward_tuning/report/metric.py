"""What is known about a recorded number, and how its name stands for many keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Better = Literal["higher", "lower", "near the base", ""]
"""Direction that is good; empty where neither is."""

Place = Literal["run", "finetune", "distil", "guards", "evaluation", "finetune.json"]
"""Where a number is recorded: metrics.jsonl of `run`, `finetune` or `distil`, guards.jsonl,
evaluation.json, finetune.json."""

_PART = re.compile(r"[A-Z_]{4,}")


@dataclass(frozen=True)
class MetricText:
    """What a number means to a reader.

    Attributes:
        what: What it measures.
        unit: Unit or range, such as `bytes`.
        healthy: Values that a good run has, with their source where they were measured.
        remedy: What to do when it is not healthy.
        better: Direction that is good.
    """

    what: str
    unit: str
    healthy: str
    remedy: str
    better: Better = ""


@dataclass(frozen=True)
class Metric:
    """A recorded number.

    Attributes:
        place: Where it is recorded.
        key: Its key: `/` leads into a mapping, `[].` into each entry of a list. A part in capitals
            stands for any name: `reward/JUDGE`, `seconds/PHASE`.
        text: What it means.
    """

    place: Place
    key: str
    text: MetricText

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        pieces = _PART.split(self.key)
        return re.compile("[^/]+".join(map(re.escape, pieces)))

    def matches(self, name: str) -> bool:
        """Return whether a name is this key, or one that it stands for."""
        return self._pattern.fullmatch(name) is not None


def number_keys(value: object, key: str = "") -> Iterator[str]:
    """Yield the key of every number in a row or a file, as `Metric.key` writes it.

    Args:
        value: JSON value. Numbers in plain lists have the key of the list and `[]`; null counts as
            a number that is missing.
        key: Key of the value itself.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            below = f"{key}." if key.endswith("[]") else f"{key}/" if key else ""
            yield from number_keys(inner, f"{below}{name}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from number_keys(inner, f"{key}[]")
    elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield key

"""The strict section: frozen, no unknown keys, no values of another type."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from reward_tuning.section import NotNegative, Positive, Section


class Example(Section):
    """A section."""

    count: Positive = 1
    offset: NotNegative = 0
    scale: float = 1.0
    on: bool = False


@pytest.mark.parametrize(
    "wrong",
    [
        {"cuont": 2},
        {"count": 0},
        {"count": True},
        {"count": "2"},
        {"count": 2.0},
        {"offset": -1},
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"scale": "1.0"},
        {"on": 1},
    ],
    ids=str,
)
def test_slips_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Example.model_validate(wrong)


def test_a_section_is_frozen_and_takes_what_fits() -> None:
    one = Example.model_validate({"count": 3, "offset": 0, "scale": 2, "on": True})
    assert (one.count, one.offset, one.scale, one.on) == (3, 0, 2.0, True)
    with pytest.raises(ValidationError):
        one.count = 4

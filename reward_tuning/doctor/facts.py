"""One line of the doctor: what was looked at, what was found, how that is, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from reward_tuning.errors import shortened
from reward_tuning.files.masked_text import masked

Mark = Literal["ok", "note", "problem"]
"""`note`: works, or is missing without being required; `problem`: required, and missing or
wrong."""

MOST = 400  # characters of the text of a probe's error


@dataclass(frozen=True)
class Fact:
    """One thing that was looked at.

    Attributes:
        group: Such as `machine`.
        name: Such as `memory`.
        value: What was found.
        mark: How that is.
        todo: What to do, with the exact command where there is one; empty for nothing.
    """

    group: str
    name: str
    value: str
    mark: Mark = "ok"
    todo: str = ""


Probe = Callable[[], Iterable[Fact]]


def gathered(group: str, name: str, probe: Probe, *, failure: Mark = "note") -> list[Fact]:
    """Return the facts of a probe; its error, whatever it is, becomes the last of them.

    Secrets that are in the environment are masked in every text.

    Args:
        group: Group of the fact that stands for an error.
        name: Name of that fact.
        probe: Yields facts.
        failure: Mark of that fact.
    """
    found: list[Fact] = []
    try:
        for fact in probe():
            found.append(fact)
    except Exception as error:
        text = f"cannot be found out: {type(error).__name__}: {error}"
        todo = "look into that error; everything else was looked at nevertheless"
        found.append(Fact(group, name, shortened(text, MOST), failure, todo))
    return [replace(fact, value=_line(fact.value), todo=_line(fact.todo)) for fact in found]


def _line(text: str) -> str:
    """Return a text on one line without secrets and control characters."""
    words = " ".join(masked(text).split())
    return "".join(letter if letter.isprintable() else "?" for letter in words)


def gigabytes(count: float) -> str:
    """Return a number of bytes in words."""
    if count >= 1e9:
        return f"{count / 1e9:.3g} GB" if count < 1e12 else f"{count / 1e9:.0f} GB"
    return f"{count / 1e6:.1f} MB"

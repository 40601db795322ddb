"""A conflict between two values of a recipe."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Conflict:
    """Two values that are each allowed but exclude each other."""

    path: tuple[str | int, ...]
    value: Any
    text: str

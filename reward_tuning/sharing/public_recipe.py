"""A run's recipe for others: no path of the machine it ran on."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import Any

from reward_tuning.files.yaml_text import read_yaml, write_yaml


def public_recipe(path: Path) -> str:
    """Return recipe.yaml with its head, each absolute path cut to its last part.

    Args:
        path: The recipe.yaml of a run.
    """
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    head = "".join(line for line in lines if line.startswith("# "))
    data = read_yaml(text)
    return head + write_yaml(_public(data))


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_public(inner) for inner in value]
    if isinstance(value, str):
        for kind in (Path, PureWindowsPath):
            if kind(value).is_absolute():
                return kind(value).name
    return value

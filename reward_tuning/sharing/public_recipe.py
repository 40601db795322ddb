"""A run's recipe for others: no path of the machine it ran on."""

from __future__ import annotations

from pathlib import Path

from reward_tuning.files.public_paths import without_folders
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
    return head + write_yaml(without_folders(data))

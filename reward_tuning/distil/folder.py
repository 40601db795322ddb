"""The run folder of a distillation."""

from __future__ import annotations

from pathlib import Path

from reward_tuning.distil.recipe import load_distil_recipe
from reward_tuning.runs.folder import RunFolder


class DistilFolder(RunFolder):
    """The run folder of a distillation: as that of every run, with its own recipe."""

    def __init__(self, root: str | Path) -> None:
        super().__init__(root, lambda path: load_distil_recipe(path, check_files=False))

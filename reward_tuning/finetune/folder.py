"""The run folder of a fine-tuning: what lies in it beside what every run has."""

from __future__ import annotations

from pathlib import Path

from reward_tuning.finetune.recipe import load_finetune_recipe
from reward_tuning.runs.folder import RunFolder


class FinetuneFolder(RunFolder):
    """The run folder of a fine-tuning: `finetune.json` is the mark of a finished one.

    `recipe.yaml`, `metrics.jsonl`, `samples/`, `checkpoints/` and `lora/` are as in every run;
    `clips.json` says which clips cannot be used, `base.json` the held-out loss before training;
    with lora: null `generator/` is the trained checkpoint.
    """

    def __init__(self, root: str | Path) -> None:
        super().__init__(root, lambda path: load_finetune_recipe(path, check_files=False))

    @property
    def written(self) -> tuple[Path, ...]:
        """What a run writes into it, beside its recipe."""
        return (*super().written, self.clips, self.base, self.generator)

    @property
    def evaluation(self) -> Path:
        """Loss of the held-out clips before and after, and how many clips were used."""
        return self.root / "finetune.json"

    @property
    def clips(self) -> Path:
        """Which clips can be used, and why others cannot."""
        return self.root / "clips.json"

    @property
    def base(self) -> Path:
        """The held-out loss before training."""
        return self.root / "base.json"

    @property
    def generator(self) -> Path:
        """The checkpoint with every weight trained."""
        return self.root / "generator"

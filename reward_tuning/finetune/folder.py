"""The run folder of a fine-tuning: the files that it has besides those of every run."""

from __future__ import annotations

from pathlib import Path

from reward_tuning.finetune.recipe import load_finetune_recipe
from reward_tuning.runs.folder import RunFolder


class FinetuneFolder(RunFolder):
    """The run folder of a fine-tuning; `finetune.json` marks a finished one.

    `recipe.yaml`, `metrics.jsonl`, `samples/`, `checkpoints/` and `lora/` are as in every run;
    `clips.json` lists the clips that cannot be used, `base.json` has the held-out loss before
    training, and with `lora: null` `generator/` is the trained checkpoint.
    """

    def __init__(self, root: str | Path) -> None:
        super().__init__(root, lambda path: load_finetune_recipe(path, check_files=False))

    @property
    def written(self) -> tuple[Path, ...]:
        """Everything that a run writes here besides its recipe."""
        return (*super().written, self.clips, self.base, self.generator)

    @property
    def evaluation(self) -> Path:
        """Held-out loss before and after, and the number of clips used."""
        return self.root / "finetune.json"

    @property
    def clips(self) -> Path:
        """Number of usable clips, and the reason for each broken one."""
        return self.root / "clips.json"

    @property
    def base(self) -> Path:
        """The held-out loss before training."""
        return self.root / "base.json"

    @property
    def generator(self) -> Path:
        """The exported checkpoint where every weight was trained."""
        return self.root / "generator"

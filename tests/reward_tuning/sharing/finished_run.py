"""A finished run as its files: written once for a module, copied where a test changes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_tuning.schema.loading import load_recipe
from reward_tuning.tuning.trainer import run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step on the embedded generator, two held-out prompts, short sampling."""
    folder = tmp_path_factory.mktemp("sharing") / "home of someone" / "run"
    changes = ["train.steps=1", "train.batch_size=1", "evaluation.prompts=2", "evaluation.steps=2"]
    run(load_recipe("tiny-demo", [*changes, f"output={folder}"]))
    return folder

"""Options of judges on Qwen2-VL that exclude each other are mistakes of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.schema.loading import load_recipe
from tests.reward_tuning.recipes_for_tests import write_recipe


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"count": 2, "fps": 1.0}, r"rewards\.0\.fps: got 1\.0; cannot be combined with count=2"),
        ({"min_pixels": 9, "max_pixels": 4}, r"rewards\.0\.min_pixels: got 9; above max_pixels=4"),
    ],
)
def test_options_that_exclude_each_other(
    tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    judge = {"kind": "qwen_critic", "checkpoint": "tiny/qwen-critic", **options}
    with pytest.raises(TuningError, match=told):
        load_recipe(write_recipe(tmp_path, rewards=[judge]), check_files=False)

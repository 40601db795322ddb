"""The published layout of PickScore's file."""

from pathlib import Path

import pytest
from safetensors import safe_open

from reward_tuning.pretrain import judge_clip


@pytest.mark.slow
def test_pickscore_is_saved_as_transformers_names_it(trained: Path) -> None:
    with safe_open(trained / "pickscore.safetensors", "pt") as file:
        names = set(file.keys())
        scale = float(file.get_tensor("logit_scale").exp())
    assert "vision_model.pre_layrnorm.weight" in names
    assert not any(name.startswith("visual.") for name in names)
    assert scale <= judge_clip.LARGEST_SCALE * 1.001

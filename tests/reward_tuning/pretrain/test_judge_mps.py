"""Training of the embedded MPS: it loads, repeats, and keeps the scale of its cosine bounded."""

from pathlib import Path

import pytest
from safetensors import safe_open

from reward_tuning.pretrain import judge_mps
from tests.reward_tuning.pretrain.small_judges import check_loads_and_scores, train_small_cross


def test_a_trained_judge_loads_scores_and_says_its_command(trained_cross: Path) -> None:
    check_loads_and_scores(trained_cross / "mps.safetensors", "mps", "mps")


def test_the_same_seed_gives_the_same_bytes(trained_cross: Path, tmp_path: Path) -> None:
    same = train_small_cross("mps", tmp_path / "same").read_bytes()
    assert (trained_cross / "mps.safetensors").read_bytes() == same
    assert train_small_cross("mps", tmp_path / "other", seed=2).read_bytes() != same


def test_the_scale_of_the_cosine_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_mps, "LARGEST_SCALE", 5.0)  # the network starts at 14.3
    with safe_open(train_small_cross("mps", tmp_path), "pt") as file:
        scale = float(file.get_tensor("model.logit_scale").float().exp())
    assert scale == pytest.approx(5.0, rel=0.02)

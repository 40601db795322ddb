"""Training of the embedded ImageReward: it loads, repeats, and has the published scale."""

from pathlib import Path

import pytest
import torch

from reward_tuning.pretrain.judge_data import draw_pairs, named_rng
from rewards import load_reward
from tests.reward_tuning.pretrain.small_judges import check_loads_and_scores, train_small_cross


def test_the_same_seed_gives_the_same_bytes(trained_cross: Path, tmp_path: Path) -> None:
    same = train_small_cross("image-reward", tmp_path / "same").read_bytes()
    other = train_small_cross("image-reward", tmp_path / "other", seed=2).read_bytes()
    assert (trained_cross / "image-reward.safetensors").read_bytes() == same
    assert other != same


def test_scores_start_with_the_published_mean_and_deviation(trained_cross: Path) -> None:
    judge = load_reward("image_reward", trained_cross / "image-reward.safetensors")
    pairs = draw_pairs(4, *named_rng("image-reward", 1, "standardise"), "train")
    frames = torch.cat([pairs.better, pairs.worse])[:, None]
    with torch.no_grad():
        scores = judge(frames, [*pairs.prompts, *pairs.prompts])
    assert float(scores.mean()) == pytest.approx(0.0, abs=0.1)  # the file is fp16
    assert float(scores.std()) == pytest.approx(1.0, abs=0.1)


def test_a_trained_judge_loads_scores_and_says_its_command(trained_cross: Path) -> None:
    path = trained_cross / "image-reward.safetensors"
    check_loads_and_scores(path, "image_reward", "image-reward")

"""The network of noisy latents."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rewards import RewardError, load_latent_reward
from rewards.kinds.latent import LatentClip
from tests.rewards import small_latent
from tests.rewards.small_latent import ARCHITECTURE, PROMPTS, latent_file, latents, random_state

judge = small_latent.judge


def test_the_order_of_frames_counts(judge: LatentClip) -> None:
    x = latents()
    assert float((judge(x, 0.0, PROMPTS) - judge(x.flip(2), 0.0, PROMPTS)).abs().min()) > 1e-4


@pytest.mark.parametrize("size", [(1, 4, 4), (5, 6, 10)])
def test_other_lengths_and_sizes_are_taken(judge: LatentClip, size: tuple[int, int, int]) -> None:
    assert bool(torch.isfinite(judge(latents(2, *size), 0.5, PROMPTS)).all())


@pytest.mark.parametrize("config", [{"depth": 3}, {"widths": [12, 16]}, {"depths": [1]}])
def test_an_impossible_architecture_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    wrong = {**ARCHITECTURE, "latent_cfg": {**ARCHITECTURE["latent_cfg"], **config}}
    path = latent_file(tmp_path, random_state(), architecture=json.dumps(wrong))
    with pytest.raises(RewardError, match="architecture does not fit a judge of latents"):
        load_latent_reward(path)

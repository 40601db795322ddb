"""A short training of the embedded VideoAlign."""

import json
from pathlib import Path

import pytest
import torch

from reward_tuning.pretrain import judge_video_align
from reward_tuning.pretrain.judge_data import named_rng
from reward_tuning.pretrain.video_align_data import (
    SORTS,
    draw_compared,
)
from rewards.kinds import video_align
from tests.reward_tuning.pretrain.small_judges import train_from_critic


@pytest.mark.slow
def test_training_writes_a_judge_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_video_align, "BATCH", 3)
    monkeypatch.setattr(judge_video_align, "MEASURED", 6)
    frames = draw_compared(1, *named_rng("trained", 0)).first
    path, judge = train_from_critic("video-align", tmp_path, frames)
    norms = json.loads((path / "model_config.json").read_text())["inference_config"]
    assert all(norms[f"{axis}_std"] > 0 for axis in SORTS)
    # The scores of what they were measured on have mean 0 and deviation 1, but for fp16.
    pairs = draw_compared(6, *named_rng("video align norms", 0))
    clips = torch.cat([pairs.first, pairs.second])
    assert isinstance(judge, video_align.VideoAlignReward)
    with torch.no_grad():
        scores = judge.axes(clips, pairs.prompts * 2)
    torch.testing.assert_close(scores.mean(dim=0), torch.zeros(3), atol=0.05, rtol=0)
    torch.testing.assert_close(scores.std(dim=0), torch.ones(3), atol=0.05, rtol=0)

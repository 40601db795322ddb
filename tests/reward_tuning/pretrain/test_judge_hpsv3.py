"""A short training of the embedded HPSv3."""

from pathlib import Path

import pytest

from reward_tuning.pretrain import judge_hpsv3
from reward_tuning.pretrain.judge_data import named_rng
from reward_tuning.pretrain.video_align_data import (
    draw_compared,
)
from tests.reward_tuning.pretrain.small_judges import train_from_critic


@pytest.mark.slow
def test_training_writes_a_judge_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_hpsv3, "FRAMES", 2)
    monkeypatch.setattr(judge_hpsv3, "PAIRS", 4)
    train_from_critic("hpsv3", tmp_path, draw_compared(1, *named_rng("trained", 0)).first)

"""The analytic target of the aesthetic head."""

import torch

from reward_tuning.pretrain.degradations import DEGRADATIONS, degrade
from reward_tuning.pretrain.judge_aesthetic import appeal
from reward_tuning.pretrain.judge_data import (
    named_rng,
)
from tests.reward_tuning.pretrain.small_judges import clean


def test_appeal_falls_with_every_visible_defect() -> None:
    frames = clean(60)
    best = appeal(frames)
    assert float(best.min()) > 6
    assert float(best.max()) <= 10
    for index, name in enumerate(DEGRADATIONS):
        degrees = torch.full((60,), 0.8)
        kinds = torch.full((60,), index)
        spoiled = appeal(degrade(frames, kinds, degrees, named_rng("appeal", 0)[1]))
        assert float((spoiled - best).mean()) < -0.1, name
        assert float(spoiled.min()) >= 1

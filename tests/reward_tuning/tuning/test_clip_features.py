"""The distance of clips by the image features of a judge."""

from __future__ import annotations

import pytest
import torch

from reward_tuning.tuning.clip_features import feature_distance


def test_the_distance_of_features() -> None:
    x, y = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 3.0])
    both = torch.tensor([1.0, 1.0])
    assert feature_distance([x, y]) == pytest.approx(1.0)
    assert feature_distance([x, 5 * x]) == pytest.approx(0.0)
    assert feature_distance([x, y, both]) == pytest.approx((1 + 2 * (1 - 0.5**0.5)) / 3)
    assert feature_distance([x, torch.tensor([3.0, 4.0])]) == pytest.approx(1 - 0.6)

"""Each degradation grows with its degree, repeats, and touches only the chosen frames."""

import pytest
import torch

from reward_tuning.pretrain.degradations import DEGRADATIONS, degrade, gaussian_blur
from reward_tuning.pretrain.judge_data import (
    named_rng,
)
from tests.reward_tuning.pretrain.small_judges import clean


@pytest.mark.parametrize("index", range(len(DEGRADATIONS)), ids=list(DEGRADATIONS))
def test_degradations_grow_with_the_degree_and_repeat(index: int) -> None:
    frames = clean()
    kinds = torch.full((len(frames),), index)
    distance = []
    for degree in (0.0, 0.2, 0.6, 1.0):
        draws = [
            degrade(frames, kinds, torch.full((len(frames),), degree), named_rng("d", 1)[1])
            for _ in range(2)
        ]
        assert torch.equal(*draws)
        assert float(draws[0].min()) >= 0
        assert float(draws[0].max()) <= 1
        distance.append(float((draws[0] - frames).square().mean()))
    assert distance[0] == 0.0
    assert distance == sorted(distance)
    assert distance[3] > 1.5 * distance[1] > 0


def test_only_the_chosen_rows_are_spoiled() -> None:
    frames = clean(4)
    kinds, degrees = torch.tensor([-1, 0, 1, 2]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    changed = (degrade(frames, kinds, degrees, named_rng("d", 1)[1]) != frames).flatten(1).any(1)
    assert changed.tolist() == [False, False, True, True]


def test_gaussian_blur_keeps_the_mean_and_has_the_asked_width() -> None:
    spike = torch.zeros(2, 3, 41, 41)
    spike[..., 20, 20] = 1
    sigmas = torch.tensor([0.9, 2.0])
    x = torch.arange(41.0) - 20
    profile = gaussian_blur(spike, sigmas)[:, 0].sum(dim=1)
    torch.testing.assert_close(profile.sum(dim=1), torch.ones(2))
    torch.testing.assert_close((profile * x**2).sum(dim=1).sqrt(), sigmas, rtol=0.01, atol=0)

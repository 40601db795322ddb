"""Sharpness: what changes that nobody sees take from a score, by judges whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from reward_tuning.evidence.reward_sharpness import (
    CHANGES,
    blurred,
    recompressed,
    reward_sharpness,
    shifted,
)
from reward_tuning.judges.judge import FramedJudge


class Brightness:
    name = "brightness"

    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        return frames.flatten(1).mean(dim=1)


class Chequers:
    """A judge that rewards a pattern of single pixels, as an exploited one does."""

    name = "chequers"

    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        height, width = frames.shape[-2:]
        sign = (-1.0) ** (torch.arange(height)[:, None] + torch.arange(width))
        return (frames * sign).flatten(1).mean(dim=1)


def clips() -> tuple[Tensor, Tensor]:
    """A smooth clip, and the same with a pattern of 2 % that a judge could reward."""
    ramp = torch.linspace(0.2, 0.8, 32)
    smooth = (ramp[:, None] + ramp)[None, None, None].expand(1, 3, 3, 32, 32) / 2
    sign = (-1.0) ** (torch.arange(32)[:, None] + torch.arange(32))
    return smooth, smooth + 0.02 * sign


def test_an_exploited_pattern_collapses_and_what_is_seen_does_not() -> None:
    smooth, pattern = clips()
    judges = [FramedJudge(one, one.name, (0, 1, 2)) for one in (Brightness(), Chequers())]
    of_smooth = reward_sharpness(smooth, ["a"], judges)
    of_pattern = reward_sharpness(pattern, ["a"], judges)
    gain = float(Chequers()(pattern, [""]) - Chequers()(smooth, [""]))
    assert gain == pytest.approx(0.02, abs=1e-4)
    lost = float(of_pattern["chequers"] - of_smooth["chequers"])
    assert lost > 0.6 * gain  # a shift even turns the sign, JPEG keeps some of it
    for found in (of_smooth, of_pattern):
        assert abs(float(found["brightness"])) < 0.01


def test_sharpness_is_the_score_less_the_mean_over_the_changes() -> None:
    clip = torch.rand(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    judge = FramedJudge(Chequers(), "chequers", (0, 2))
    found = reward_sharpness(clip, ["a", "b"], [judge])["chequers"]
    changed = [Chequers()(change(clip)[:, [0, 2]], []) for change in CHANGES.values()]
    expected = Chequers()(clip[:, [0, 2]], []) - sum(changed) / 3
    assert torch.allclose(found, expected, atol=1e-7)


def test_the_changes() -> None:
    clip = torch.rand(2, 3, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    assert torch.equal(shifted(clip)[..., 1:], clip[..., :-1])
    assert torch.equal(shifted(clip)[..., 0], clip[..., 0])
    weight = np.exp(-0.5 * (np.array([-1, 0, 1]) / 0.5) ** 2)
    kernel = np.outer(weight, weight) / weight.sum() ** 2
    around = clip[1, 2, 0, 3:6, 7:10].numpy()
    assert float(blurred(clip)[1, 2, 0, 4, 8]) == pytest.approx(float((around * kernel).sum()))
    smooth = clips()[1].clamp(0, 1)
    read = recompressed(smooth)
    assert read.shape == smooth.shape
    off = float((read - smooth).square().mean())
    assert 0 < off < 10 ** (-30 / 10)  # 30 dB or more
    for change in CHANGES.values():
        assert torch.allclose(
            change(torch.full((1, 1, 3, 16, 16), 0.5)), torch.tensor(0.5), atol=0.003
        )

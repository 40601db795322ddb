"""Measures of any clip without a judge, worked out by hand."""

from __future__ import annotations

import pytest
import torch

from reward_tuning.tuning.clip_measures import diversity, light_and_colour, measures, motion


def test_motion() -> None:
    clip = torch.tensor([0.0, 0.5, 0.25]).view(1, 3, 1, 1, 1).expand(1, 3, 3, 4, 4)
    still = torch.full((1, 3, 3, 4, 4), 0.3)
    assert motion(torch.cat([clip, still])).tolist() == pytest.approx([0.375, 0.0])
    assert motion(clip[:, :1]).tolist() == [0.0]


def test_light_and_colour() -> None:
    clip = torch.zeros(2, 2, 3, 2, 4)
    clip[0, 0, :, :, 2:] = 1.0  # half white, half black; then black
    clip[1, :, 0] = 0.8  # all red
    found = light_and_colour(clip)
    assert found["brightness"].tolist() == pytest.approx([0.25, 0.8 * 0.299])
    assert found["contrast"].tolist() == pytest.approx([0.25, 0.0], abs=1e-6)
    assert found["saturation"].tolist() == pytest.approx([0.0, 0.8])


def test_diversity() -> None:
    clips = [torch.full((2, 3, 4, 4), value) for value in (0.0, 0.25, 1.0)]
    assert diversity(clips) == pytest.approx((0.25 + 1.0 + 0.75) / 3)
    assert diversity([clips[0], clips[0]]) == 0.0


def test_the_measures_of_an_evaluation() -> None:
    frames = torch.rand(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = measures(frames)
    assert list(found) == ["motion", "brightness", "contrast", "saturation"]
    assert torch.equal(found["motion"], motion(frames))
    assert torch.equal(found["contrast"], light_and_colour(frames)["contrast"])

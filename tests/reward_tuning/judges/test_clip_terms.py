"""Motion that flicker cannot feed, and the likeness of clips of one prompt."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.judges.clip_terms import likeness, shortfall, steady_motion
from reward_tuning.tuning.clip_measures import motion


def still(frames: int = 9) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 3, 8, 8, generator=draw, dtype=torch.float64)
    large = torch.nn.functional.interpolate(picture, size=(32, 32), mode="bicubic")
    return (0.3 + 0.4 * large.clamp(0, 1)).expand(frames, 3, 32, 32)[None]


def travelling(speed: int = 2) -> Tensor:
    frames = [torch.roll(frame, speed * t, dims=-1) for t, frame in enumerate(still()[0])]
    return torch.stack(frames)[None]


def test_what_travels_is_seen_and_what_flickers_is_not() -> None:
    draw = torch.Generator().manual_seed(1)
    sign = torch.tensor([1.0, -1.0] * 5)[:9].view(1, 9, 1, 1, 1)
    pattern = torch.randn(1, 1, 3, 32, 32, generator=draw, dtype=torch.float64)
    bright = torch.randn(1, 9, 1, 1, 1, generator=draw, dtype=torch.float64)
    noise = torch.randn(1, 9, 3, 32, 32, generator=draw, dtype=torch.float64)
    moved = float(steady_motion(travelling()))
    assert moved > 0.02
    assert float(steady_motion(still())) == 0.0
    for name, cheat, bar in (
        ("a pattern there and back", 0.1 * sign * pattern, 1e-12),
        ("brightness", 0.1 * bright, 1e-12),
        ("noise", 0.05 * noise, 0.25),
    ):
        clip = still() + cheat
        assert float(motion(clip)) > 0.5 * float(motion(travelling())), name  # the plain measure
        assert float(steady_motion(clip)) < bar * moved + 1e-12, name


def test_faster_is_more() -> None:
    slow, fast = (float(steady_motion(travelling(speed))) for speed in (1, 2))
    assert fast > 1.2 * slow


def test_motion_is_differentiable_and_needs_five_frames() -> None:
    clip = travelling()[:, :5, :, :8, :8].clone().requires_grad_()
    torch.autograd.gradcheck(steady_motion, (clip,))
    with pytest.raises(TuningError, match="needs 5 neighbouring frames, but 4"):
        steady_motion(clip[:, :4])


def test_likeness_of_pairs() -> None:
    a, b, c = torch.eye(3, dtype=torch.float64)
    features = torch.stack([2 * a, 5 * a, b, a + b, a, -a])
    assert likeness(features, 2).tolist() == pytest.approx([1.0, 0.5**0.5, -1.0])
    # three by three: (aa, ab, ab) and (a+b with a, a+b with -a, a with -a)
    assert likeness(features, 3).tolist() == pytest.approx([1 / 3, -1 / 3])
    torch.autograd.gradcheck(lambda x: likeness(x, 2), (features.clone().requires_grad_(),))
    assert float(likeness(torch.stack([a, c]), 2)) == 0.0


def test_shortfall() -> None:
    values = torch.tensor([0.1, 0.3])
    assert float(shortfall(values, None)) == pytest.approx(-0.2)
    assert float(shortfall(values, 0.2)) == pytest.approx(0.05)

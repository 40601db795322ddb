"""How judges of whole clips are measured, on judges whose answers are known."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from base_model.tiny.oracle import centres, recognise_clip, soft_mask
from base_model.tiny.render import render_staged
from base_model.tiny.scenes import FRAMES, Scene
from reward_tuning.pretrain.clip_accuracy import (
    FASTEST,
    MIDDLE,
    at_speed,
    ordering_accuracy,
    shuffled,
    speed_agreement,
    teleported,
    turned_back,
)
from rewards.kinds.measure import Measure

SCENE = Scene("red", "square", "dark", "small", "right")


def test_what_cannot_be() -> None:
    rng = random.Random(0)
    clip, mixed = shuffled(SCENE, rng)
    pixels = clip.flatten(1).sum(dim=1)
    assert sorted(pixels.tolist()) == sorted(mixed.flatten(1).sum(dim=1).tolist())
    assert not torch.equal(clip, mixed)
    clip, jumped = teleported(SCENE, rng)
    assert torch.equal(clip[:MIDDLE], jumped[:MIDDLE])
    path = centres(soft_mask(jumped)).diff(dim=0).norm(dim=1)
    assert int(path.argmax()) == MIDDLE - 1
    assert float(path.max()) > 5.0
    clip, turned = turned_back(SCENE, rng)
    assert torch.equal(turned[: MIDDLE + 1], clip[: MIDDLE + 1])
    assert torch.equal(turned, turned.flip(0))


def test_at_speed() -> None:
    for speed in (0.0, 1.3, FASTEST):
        moved = render_staged(SCENE, at_speed(SCENE, speed, random.Random(1)))
        found = torch.tensor(recognise_clip(moved).velocity)
        assert float(found.norm()) == pytest.approx(speed, abs=0.1)
        middle = centres(soft_mask(moved))[MIDDLE]
        assert middle.tolist() == pytest.approx([32.0, 32.0], abs=1.5)


def steadiness(frames: Tensor, prompts: Sequence[str]) -> Tensor:
    """Minus the largest change of velocity of the shape: what no rendered clip has."""
    paths = torch.stack([centres(soft_mask(clip)) for clip in frames])
    return -paths.diff(n=2, dim=1).norm(dim=2).amax(dim=1)


def test_a_judge_that_sees_the_path_orders_all_pairs_and_a_blind_one_half() -> None:
    seeing = Measure(steadiness, "steadiness")
    assert set(ordering_accuracy(seeing, 12, 0).values()) == {1.0}
    worst = Measure(lambda frames, prompts: -steadiness(frames, prompts), "worst")
    assert set(ordering_accuracy(worst, 12, 0).values()) == {0.0}


def test_agreement_with_speed() -> None:
    def speed(frames: Tensor, prompts: Sequence[str]) -> Tensor:
        return centres_moved(frames) ** 3

    found = speed_agreement(Measure(speed, "cubed"), 12, 0)
    assert found["rank correlation"] > 0.95
    assert found["pairs"] > 0.95
    assert 0.7 < found["correlation"] < found["rank correlation"]
    slow = Measure(lambda frames, prompts: -centres_moved(frames), "slow")
    assert speed_agreement(slow, 12, 0)["pairs"] < 0.05


def centres_moved(frames: Tensor) -> Tensor:
    paths = torch.stack([centres(soft_mask(clip)) for clip in frames])
    return (paths[:, -1] - paths[:, 0]).norm(dim=1) / (FRAMES - 1)

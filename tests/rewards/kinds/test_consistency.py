"""Feature consistency on a CLIP, against the published rule frame by frame."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from base_model.tiny.render import render
from base_model.tiny.scenes import scenes
from reward_tuning.pretrain.judge_data import named_rng
from rewards import RewardError
from rewards.core.tower_options import TowerOptions
from rewards.kinds.clip import load_clip
from rewards.kinds.consistency import Consistency, consistency, load_consistency
from tests.rewards.synthetic_clips import cut, pan, still
from tests.rewards.tiny_clip import ARCHITECTURE, flat_file, frames, random_state

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def judge() -> Consistency:
    return load_consistency("tiny/clip.safetensors", TowerOptions())


def test_the_rule_frame_by_frame() -> None:
    features = torch.randn((2, 5, 7), generator=torch.Generator().manual_seed(0))
    expected = []
    for clip in features:  # VBench's loop: the frame before and the first one, negatives as 0
        total = 0.0
        for time in range(1, 5):
            before = max(0.0, float(F.cosine_similarity(clip[time - 1], clip[time], dim=0)))
            first = max(0.0, float(F.cosine_similarity(clip[0], clip[time], dim=0)))
            total += (before + first) / 2
        expected.append(total / 4)
    assert consistency(F.normalize(features, dim=-1)).tolist() == pytest.approx(expected, rel=1e-5)


def test_features_are_those_of_the_checkpoints_clip(tmp_path: Path) -> None:
    path = flat_file(tmp_path, random_state(ARCHITECTURE))
    clip = load_clip(path, TowerOptions(), architecture=ARCHITECTURE)
    x = frames(2, 3)
    expected = consistency(clip.image_features(x.flatten(0, 1)).unflatten(0, (2, 3)))
    judge = load_consistency(path.name, TowerOptions(folder=tmp_path), architecture=ARCHITECTURE)
    found = judge(x, ["-", "-"])
    torch.testing.assert_close(found, expected)


def rendered(count: int, motion: str = "left") -> torch.Tensor:
    """Clips of scenes that differ in everything but their motion."""
    chosen = [scene for scene in scenes("held_out") if scene.motion == motion]
    return render(chosen[:: len(chosen) // count][:count], named_rng("consistency", 0)[0])


def test_the_order_of_clips(judge: Consistency) -> None:
    clips = rendered(9)
    unrelated = clips[:, 0][None]
    halves = torch.cat([clips[:1, :4], clips[4:5, 4:]], dim=1)
    order = torch.cat([unrelated, halves, clips[:1], clips[:1, :1].expand(1, 9, -1, -1, -1)])
    scores = judge(order, ["-"] * 4).tolist()
    assert scores == sorted(scores)
    assert scores[-1] == pytest.approx(1.0, abs=1e-5)
    assert scores[0] < scores[2] - 0.05


def test_few_frames_at_once_change_no_number_and_no_gradient(judge: Consistency) -> None:
    x = torch.cat([cut(64), pan(4, 64)])[:, ::2].clone().requires_grad_()
    scores = judge(x, ["-", "-"])
    (whole,) = torch.autograd.grad(scores.sum(), x)
    few = Consistency(judge.tower, encoded_at_once=2)
    torch.testing.assert_close(few(x, ["-", "-"]), scores)
    (chunked,) = torch.autograd.grad(few(x, ["-", "-"]).sum(), x)
    torch.testing.assert_close(chunked, whole, rtol=1e-3, atol=1e-6)
    assert float(whole.flatten(2).norm(dim=2).min()) > 0


def test_ascent_on_pixels_raises_it(judge: Consistency) -> None:
    x = rendered(5)[:, 0][None]
    before = float(judge(x, ["-"]))
    for _ in range(10):
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(judge(x, ["-"]).sum(), x)
        x = (x + 0.2 * g / g.norm()).clamp(0, 1)
    assert float(judge(x.detach(), ["-"])) > before + 0.02


def test_a_cap_and_a_single_frame(judge: Consistency) -> None:
    capped = Consistency(judge.tower)
    capped.cap = 0.5
    x = still(64)[:, :2].clone().requires_grad_()
    score = capped(x, ["-"])
    assert score.tolist() == [0.5]
    (g,) = torch.autograd.grad(score.sum(), x)
    assert float(g.abs().max()) == 0.0
    with pytest.raises(RewardError, match="consistency compares frames and needs at least 2"):
        judge(still(64)[:, :1], ["-"])

"""Pairs of clips: each differs in its own axis and in nothing else."""

from math import isnan

import pytest
import torch

from base_model.tiny.captions import parse_caption
from base_model.tiny.oracle import judge as oracle
from base_model.tiny.oracle import recognise_clip
from base_model.tiny.scenes import ATTRIBUTES, FRAMES, SIDE
from reward_tuning.pretrain.judge_data import named_rng
from reward_tuning.pretrain.video_align_data import (
    FAULTS,
    SORTS,
    Compared,
    draw_compared,
    spoiled_alike,
)


@pytest.fixture(scope="module")
def pairs() -> Compared:
    return draw_compared(60, *named_rng("compared", 0))


def test_prompts_say_what_the_first_clip_shows_and_one_word_else(pairs: Compared) -> None:
    for prompt, other, word in zip(pairs.prompts, pairs.others, pairs.words, strict=True):
        (scene, language), (changed, same) = parse_caption(prompt), parse_caption(other)
        assert language == same
        assert scene.split == changed.split == "train"
        differ = [n for n in ATTRIBUTES if getattr(scene, n) != getattr(changed, n)]
        assert differ == [word]
    assert set(pairs.words) == set(ATTRIBUTES)


def test_each_sort_differs_in_its_own_axis(pairs: Compared) -> None:
    assert pairs.sorts == [*SORTS] * 20
    for sort, row, reason in zip(pairs.sorts, pairs.better.tolist(), pairs.reasons, strict=True):
        said = dict(zip(SORTS, row, strict=True))
        assert said[sort] == 1.0
        others = [value for name, value in said.items() if name != sort]
        assert all(value == 0.0 or isnan(value) for value in others), reason
        if sort == "TA":
            assert reason in ATTRIBUTES
    distance = (pairs.first - pairs.second).abs().flatten(1).mean(dim=1)
    assert float(distance.min()) > 1e-3


@pytest.mark.slow
def test_another_word_changes_the_second_clip_alone_and_in_that_word() -> None:
    pairs = draw_compared(40, *named_rng("other word", 0), sorts=("TA",))
    matches = [
        torch.tensor([oracle(clips, prompts).right[name].tolist() for name in ATTRIBUTES])
        for clips in (pairs.first, pairs.second)
        for prompts in (pairs.prompts, pairs.others)
    ]
    changed = torch.tensor([[r == name for r in pairs.reasons] for name in ATTRIBUTES])
    for shown, (own, other) in enumerate((matches[:2], matches[2:])):
        right, wrong = (own, other) if shown == 0 else (other, own)
        assert float(right.mean()) > 0.95  # the oracle misreads a few that jitter has touched
        assert float(wrong[changed].mean()) < 0.1
        assert float(wrong[~changed].mean()) > 0.95
    still = [b for b, r in zip(pairs.better.tolist(), pairs.reasons, strict=True) if r == "motion"]
    assert still
    assert all(isnan(row[1]) for row in still)


def test_a_spoiled_clip_is_spoiled_in_every_frame_alike() -> None:
    clip = torch.full((FRAMES, 3, SIDE, SIDE), 0.5)
    for kind in ("noise", "tint", "grid"):
        less, more = spoiled_alike(clip, kind, *named_rng("alike", kind))
        for side in (less, more):
            assert torch.equal(side, side[:1].expand_as(side))
        assert float((more - clip).abs().mean()) > float((less - clip).abs().mean()) + 0.01


def test_faults_of_motion(pairs: Compared) -> None:
    assert {r for r, s in zip(pairs.reasons, pairs.sorts, strict=True) if s == "MQ"} == set(FAULTS)
    scene = parse_caption("a large blue square moves right on a dark background")[0]
    shown = {name: fault(scene, named_rng("fault", name)[0]) for name, fault in FAULTS.items()}
    speeds = {name: recognise_clip(bad).velocity for name, (_, bad) in shown.items()}
    assert speeds["frozen"] == pytest.approx((0.0, 0.0), abs=0.01)
    for name, (good, bad) in shown.items():
        steps = bad.diff(dim=0).abs().flatten(1).amax(dim=1)
        assert recognise_clip(good).velocity[0] == pytest.approx(2.0, rel=0.15)
        if name == "stuttering":  # three frames alike, then a leap
            assert (steps > 0).tolist() == [False, False, True] * 2 + [False, False]
        if name == "flickering":
            assert float(bad[:, :, 0, 0].mean(dim=1).std()) > 0.05

"""Questions to the critic, their answers, and the clips' defects."""

import random

import torch

from base_model.tiny.captions import parse_caption
from base_model.tiny.scenes import ATTRIBUTES, SIDE, draw_scenes
from reward_tuning.pretrain import critic_data
from reward_tuning.pretrain.critic_data import (
    ASKED,
    DEFECTS,
    draw_asked,
    draw_clips,
    prompt_scene,
    spoil,
)
from reward_tuning.pretrain.judge_data import named_rng
from rewards.kinds.qwen_critic import ASPECTS


def test_answers_are_what_the_scenes_say() -> None:
    aspects = tuple(ASPECTS)
    asked = draw_asked(60, aspects, *named_rng("asked", 0))
    prompt = {aspect: text.partition("{prompt}") for aspect, text in ASPECTS.items()}
    for scene, defect, texts, answers in zip(
        asked.shown.scenes,
        asked.shown.defects.tolist(),
        asked.questions,
        asked.answers.tolist(),
        strict=True,
    ):
        for aspect, text, answer in zip(aspects, texts, answers, strict=True):
            if aspect == "artefact":
                assert answer == float(defect < 0)
                continue
            before, _, after = prompt[aspect]
            said, _ = parse_caption(text.removeprefix(before).removesuffix(after))
            assert said.split == "train"
            name = ASKED[aspect]
            assert answer == float(getattr(said, name) == getattr(scene, name))
    shares = asked.answers.mean(dim=0)
    assert float(shares.min()) > 0.3  # neither answer pays by itself
    assert float(shares.max()) < 0.75


def test_what_is_not_asked_for_varies() -> None:
    rng = random.Random(1)
    changed = dict.fromkeys(ATTRIBUTES, 0)
    for scene in draw_scenes(400, rng):
        said = prompt_scene(scene, "colour", True, rng, "train")
        for name in ATTRIBUTES:
            changed[name] += getattr(said, name) != getattr(scene, name)
    assert changed.pop("colour") == 0
    assert all(0.3 < times / 400 < 0.5 for times in changed.values()), changed


def test_flicker_changes_brightness_from_frame_to_frame_and_nothing_else_does() -> None:
    clips = torch.full((2, 9, 3, SIDE, SIDE), 0.5)
    defects = torch.tensor([DEFECTS.index("flicker"), -1])
    spoiled = spoil(clips, defects, torch.tensor([1.0, 1.0]), named_rng("spoil", 0)[1])
    assert torch.equal(spoiled[1], clips[1])
    light = spoiled[0].flatten(1)
    assert torch.equal(light.amin(dim=1), light.amax(dim=1))
    assert float(light[:, 0].std()) > 0.1
    assert float((light[:, 0] - 0.5).abs().max()) <= 0.4


def test_coverage_is_where_the_shape_is() -> None:
    shown = draw_clips(8, *named_rng("cover", 0), pairs=2)
    assert shown.clips.shape == (8, 4, 3, SIDE, SIDE)
    coverage = shown.coverage(16)
    torch.testing.assert_close(coverage.sum(dim=1), torch.ones(8))
    for row in range(8):
        time, place = divmod(int(coverage[row].argmax()), 16)
        y, x = 16 * (place // 4), 16 * (place % 4)
        inside = shown.shapes[row, 2 * time : 2 * time + 2, 0, y : y + 16, x : x + 16]
        every = shown.shapes[row, :, 0].unflatten(0, (2, 2)).mean(dim=1)
        tiles = torch.nn.functional.avg_pool2d(every, 16)
        torch.testing.assert_close(inside.mean(), tiles.max())
    whole = draw_clips(2, *named_rng("cover", 0))
    assert whole.clips.shape[1] == critic_data.FRAMES

"""Scores of the embedded world's own renders."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import torch

from base_model.tiny.captions import phrasings
from base_model.tiny.render import render
from base_model.tiny.scenes import Scene
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.tuning.rendered_reference import rendered_means
from rewards import load_reward
from tests.rewards.tiny_clip import ARCHITECTURE, flat_file, random_state


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> FramedJudge:
    path = flat_file(
        tmp_path_factory.mktemp("judge"),
        random_state(ARCHITECTURE),
        architecture=json.dumps(ARCHITECTURE),
    )
    return FramedJudge(load_reward("clip", path), "clip", (0, 2))


SCENES = [
    Scene("red", "circle", "dark", "large", "left"),
    Scene("blue", "square", "bright", "medium", "up"),
    Scene("green", "triangle", "striped", "large", "still"),
]


def test_renders_stand_where_a_perfect_generator_would(judge: FramedJudge) -> None:
    prompts = [Prompt(phrasings(s, "zh")[0], phrasings(s, "en")[0]) for s in SCENES]
    judge = replace(judge, positions=tuple(range(9)))
    found = rendered_means(prompts, [judge], 2, torch.device("cpu"))
    assert found == rendered_means(prompts, [judge], 3, torch.device("cpu"))
    assert found["oracle"] == 1.0
    assert found["oracle_tone_off"] < 0.01
    clips = [render([s], random.Random(f"reference/{i}")) for i, s in enumerate(SCENES)]
    with torch.no_grad():
        scores = judge.reward(torch.cat(clips), [p.reward_text for p in prompts])
    assert found["clip"] == pytest.approx(float(scores.mean()), abs=1e-5)

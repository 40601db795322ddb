"""The two stages of training with cross-attention, and its captions."""

import json
import random
from pathlib import Path

from base_model.tiny.captions import parse_caption
from base_model.tiny.scenes import Scene
from reward_tuning.pretrain.judge_cross import draw_choices
from reward_tuning.pretrain.judge_data import VISIBLE
from tests.reward_tuning.pretrain.small_judges import (
    CROSS_JUDGES,
)

SCENE = Scene("red", "star", "dark", "large", "left")


def test_each_judge_first_learns_to_see(trained_cross: Path) -> None:
    logs = {
        log.stem: log.read_text().splitlines()
        for log in (trained_cross / "training").glob("*.jsonl")
    }
    assert set(logs) == {"cross-eyes", "mps-eyes", *CROSS_JUDGES}
    for stage in ("cross-eyes", "mps-eyes"):
        assert [json.loads(line)["step"] for line in logs[stage]] == [2]
    for name in CROSS_JUDGES:
        last = json.loads(logs[name][-1])
        assert {"retrieved", "chosen", "preferred", *VISIBLE} <= set(last)


def test_choices_differ_in_one_visible_word() -> None:
    rng = random.Random(0)
    short = 0
    for _ in range(60):
        right, *wrong = draw_choices(SCENE, rng)
        assert len({right, *wrong}) == 3
        try:
            said, language = parse_caption(right)
        except ValueError:  # a short caption, which is not of the grammar
            short += 1
            continue
        assert said == SCENE
        for text in wrong:
            other, same = parse_caption(text)
            assert same == language
            differing = [n for n in (*VISIBLE, "motion") if getattr(other, n) != getattr(SCENE, n)]
            assert len(differing) == 1
            assert differing[0] in VISIBLE
    assert 5 < short < 30

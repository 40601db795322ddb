"""Judges that compare frames are refused early where they would be shown too few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.schema.judge_kinds import KINDS
from reward_tuning.schema.loading import load_recipe
from rewards import load_reward
from rewards.core.base import VideoReward
from rewards.kinds.consistency import Consistency
from rewards.kinds.dynamic_degree import DynamicDegree
from tests.reward_tuning.recipes_for_tests import write_recipe


def _load(folder: Path, judge: dict[str, Any], **changes: Any) -> None:
    clip = {"kind": "clip", "checkpoint": "clip-vit-h-14"}
    write = {"evaluation__held_out_rewards": [clip], "rewards": [judge], **changes}
    load_recipe(write_recipe(folder, **write), check_files=False)


@pytest.mark.parametrize(
    ("judge", "least"),
    [
        ({"kind": "motion_energy"}, 5),
        ({"kind": "motion_flow"}, 5),
        ({"kind": "motion_flow", "energy": 0.0}, 4),
        ({"kind": "flicker"}, 3),
        ({"kind": "consistency", "checkpoint": "another.pt"}, 2),
        ({"kind": "vjepa2", "checkpoint": "a.safetensors"}, 3),
    ],
)
def test_frames_of_a_judge(tmp_path: Path, judge: dict[str, Any], least: int) -> None:
    with pytest.raises(TuningError, match=rf"rewards\.0\.frames: got {least - 1}; .* {least} of"):
        _load(tmp_path, {**judge, "frames": least - 1})
    _load(tmp_path, {**judge, "frames": least})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("motion_energy", {}),
        ("motion_flow", {}),
        ("motion_flow", {"energy": 0.0}),
        ("flicker", {}),
        ("sharpness", {}),
    ],
)
def test_sections_and_judges_agree(kind: str, options: dict[str, Any]) -> None:
    judge = load_reward(kind, **options)
    wanted = judge.least_frames if isinstance(judge, VideoReward) else 1
    assert KINDS[kind].model_validate({"kind": kind, **options}).least_frames == wanted  # type: ignore[attr-defined]


def test_sections_and_classes_agree() -> None:
    for kind, judge in (("consistency", Consistency), ("dynamic_degree", DynamicDegree)):
        section = KINDS[kind].model_validate({"kind": kind, "checkpoint": "a.pt"})
        assert section.least_frames == judge.least_frames  # type: ignore[attr-defined]


def test_a_clip_that_is_too_short(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=r"rewards\.0\.kind: .*at least 5.*sampling\.frames=1"):
        _load(tmp_path, {"kind": "motion_energy"}, sampling__frames=1)


@pytest.mark.parametrize("decoded", ["first", "random-window", "stratified"])
def test_a_window_that_may_be_too_short(tmp_path: Path, decoded: str) -> None:
    judge = {"kind": "motion_energy"}
    window = {"train__decoded": decoded, "train__decoded_latents": 1}
    told = r"rewards\.0\.kind: .*may show it only 1; set train\.decoded"
    with pytest.raises(TuningError, match=told):
        _load(tmp_path, judge, **window)
    _load(tmp_path, judge, **{**window, "train__decoded_latents": 2})  # 1 + 4 frames
    _load(tmp_path, judge, **{**window, "train__decoded": "all"})


def test_a_held_out_judge_sees_whole_clips(tmp_path: Path) -> None:
    hps = {"kind": "hps", "checkpoint": "hps-v2.1"}
    held_out = [{"kind": "flicker"}]
    _load(tmp_path, hps, train__decoded="first", evaluation__held_out_rewards=held_out)
    with pytest.raises(TuningError, match=r"held_out_rewards\.0\.frames: got 2"):
        _load(tmp_path, hps, evaluation__held_out_rewards=[{"kind": "flicker", "frames": 2}])

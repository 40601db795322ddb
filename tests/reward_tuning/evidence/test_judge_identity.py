"""The identity of a judge: its content and its options, not its name, role or place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from reward_tuning.evidence.judge_identity import judge_identity
from reward_tuning.schema.judge_parts import JudgeSection
from reward_tuning.schema.judge_roles import HELD_OUT, TRAINED

TINY = "tiny/clip.safetensors"


def clip(role: dict[str, type[JudgeSection]] = HELD_OUT, **options: Any) -> JudgeSection:
    return role["clip"].model_validate({"kind": "clip", "checkpoint": TINY, **options})


def test_role_name_and_place_do_not_count(tmp_path: Path) -> None:
    from rewards.core.locate import resolve_file

    copy = tmp_path / "mine.safetensors"
    shutil.copy(resolve_file(TINY), copy)
    expected = judge_identity(clip())
    for other in (
        clip(TRAINED, weight=0.3, target=2.0),
        clip(name="mine"),
        clip(chunk=2, gradient_checkpointing=True),
        clip(checkpoint=str(copy)),
    ):
        assert judge_identity(other) == expected


def test_content_and_what_it_sees_count(tmp_path: Path) -> None:
    others = [
        clip(),
        clip(frames=2),
        clip(grayscale=True),
        clip(prompt="a picture"),
        clip(dtype="bfloat16"),
        clip(over_frames={"kind": "best", "share": 0.5}),
        clip(checkpoint="tiny/clip-held-out.safetensors"),
        HELD_OUT["flicker"].model_validate({"kind": "flicker"}),
    ]
    assert len({judge_identity(one) for one in others}) == len(others)

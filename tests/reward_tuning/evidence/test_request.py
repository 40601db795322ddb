"""A request's defaults, and the size that a setup gives."""

from __future__ import annotations

from pathlib import Path

from reward_tuning.evidence.request import EvaluationRequest
from tests.reward_tuning.evidence.test_sides_plan import setup


def test_defaults_are_one_adapter_at_full_strength() -> None:
    request = EvaluationRequest([Path("run")])
    assert tuple(request.strengths) == (1.0,)
    assert (request.clips, request.sharpness, request.judges) == (8, True, None)
    assert (tuple(request.steps), tuple(request.guidance)) == ((), ())


def test_the_size_is_frames_height_width() -> None:
    assert setup([25], [6.0]).size == (49, 256, 256)

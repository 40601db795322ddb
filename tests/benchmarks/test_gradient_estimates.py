"""The table and the picture of estimated gradients, and the measurement on two clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gradient_estimates
from benchmarks.gradient_estimates import measured, picture, report

SHORT = ("sampling.steps=2", "method.active_steps=1")


def found() -> dict[str, Any]:
    counts = {str(count): {"latents": [0.1, 0.3], "0": [0.2, 0.4]} for count in (2, 4, 8, 16, 32)}
    summed = {count: {"0": 0.55} for count in counts}
    return {
        "sigmas": [1.0, 0.0],
        "each": {"group": counts, "paired": counts},
        "summed": {"group": summed, "paired": summed},
    }


def test_the_table_has_means_errors_and_sums() -> None:
    lines = report(found()).splitlines()
    assert lines[0] == "| estimate | clips | latents | sigma 1 |"
    assert lines[2] == "| group | 2 | +0.20 ± 0.10 | +0.30 ± 0.10; +0.55 |"
    assert len(lines) == 2 + 10


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture(found(), tmp_path / "made" / "picture.png")
    assert (tmp_path / "made" / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_an_estimate_of_two_clips_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With HPS's own gradient in place of the estimate the cosine is 1 at every step."""
    monkeypatch.setattr(gradient_estimates, "COUNTS", (2,))
    monkeypatch.setattr(gradient_estimates, "PARTS", (2,))
    monkeypatch.setattr(gradient_estimates, "OVERRIDES", (*gradient_estimates.OVERRIDES, *SHORT))
    made = gradient_estimates.made_clips
    own = []

    def kept(*arguments: Any) -> Any:
        clips = made(*arguments)
        own.append(clips.exact)
        return clips

    monkeypatch.setattr(gradient_estimates, "made_clips", kept)
    monkeypatch.setattr(gradient_estimates, "group_gradient", lambda *of: 3.0 * own[0])
    threads = torch.get_num_threads()
    try:
        cosines = measured(1, 0.5)
    finally:
        torch.set_num_threads(threads)
    exact, paired = (cosines["each"][name]["2"] for name in ("group", "paired"))
    assert set(exact) == {"latents", "0", "1"}
    assert all(value == pytest.approx([1.0], abs=1e-5) for value in exact.values())
    assert all(abs(value[0]) < 0.9 for value in paired.values())

"""The tables of evaluate: sides, changes, and what is said below them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.cli.sides_table import print_sides


def change(mean: float, p: float, prompts: int = 32) -> dict[str, Any]:
    half = 0.5 * abs(mean) if p <= 0.05 else 2 * abs(mean)
    counts = {"up": 20, "down": 12, "prompts": prompts} if mean else {"up": 0, "down": 0}
    ends = {"low": mean - half, "high": mean + half, "p": p, "p_adjusted": p}
    return {"mean": mean, **ends, **counts, "prompts": prompts}


def side(name: str, strength: float) -> dict[str, Any]:
    return {
        "name": name,
        "against": 0,
        "means": {"clip": 0.5 + strength / 10, "drift": 0.0213},
        "ratios": {"motion": 0.934, "feature_diversity": 1.0},
        "difference": {
            "motion": change(-0.01, 0.3),
            "clip": change(strength / 10, 0.001),
            "hps": change(0.02, 0.04),
            "oracle": change(0.0, 1.0),
            "oracle_tone_off": change(0.0, 1.0),
        },
    }


FOUND: dict[str, Any] = {
    "prompts": 32,
    "seeds": 2,
    "primary": "clip",
    "trained_on": ["hps"],
    "never_trained_on": ["clip"],
    "sides": [
        {"name": "base", "against": None, "means": {"clip": 0.5}},
        *(side(f"a x{strength}", strength) for strength in (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)),
    ],
    "texts": ["a sentence"],
}


def test_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "evaluation.csv").touch()
    print_sides(FOUND, tmp_path, as_json=False)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "clip decides: 32 prompts x 2 clips, same noise"
    assert lines[1] == "mean change 95 % interval verdict side"
    assert "0.5000 0 base" in lines
    assert "0.5200 +0.0200 +0.0100 to +0.0300 higher 1 a x0.2" in lines
    assert "motion diversity drift side" in lines
    assert "0.93 1.00 0.021 2 a x0.4" in lines
    # trained ones first; six sides are two tables; what never changed is below
    assert "side 1 side 2 side 3 side 4 side 5 metric" in lines
    assert "+0.0200* +0.0200* +0.0200* +0.0200* +0.0200* hps (trained on)" in lines
    assert "+0.0200* +0.0400* +0.0600* +0.0800* +0.1000* clip" in lines
    assert "side 6 metric" in lines
    assert "+0.1200* clip" in lines
    assert "-0.0100 motion" in lines
    assert "no change seen on any prompt: oracle: all right, oracle: background off" in lines
    assert not any("..." in line or "\u2026" in line for line in lines)  # nothing is cut off
    assert "a sentence" in lines
    assert lines[-1] == f"evaluation.csv: {tmp_path / 'evaluation.csv'}"


def test_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    print_sides(FOUND, tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out) == FOUND


def test_the_sampling_of_sides_that_do_not_name_theirs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    how = {"steps": 4, "guidance_scale": 3.0}
    alike = FOUND | {"sides": [one | how for one in FOUND["sides"]]}
    print_sides(alike, tmp_path, as_json=False)
    assert capsys.readouterr().out.splitlines()[0] == "sampled in 4 steps at guidance 3"
    base = {"name": "base, 8 steps", "against": None, "means": {"clip": 0.5}}
    other = base | {"steps": 8, "guidance_scale": 3.0}
    print_sides(alike | {"sides": [*alike["sides"], other]}, tmp_path, as_json=False)
    assert capsys.readouterr().out.splitlines()[0] == (
        "sampled in 4 steps at guidance 3, where the name of a side says nothing else"
    )

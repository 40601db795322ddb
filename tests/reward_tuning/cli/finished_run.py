"""The folder of a finished run, as far as the command line reads it."""

import json
from pathlib import Path
from typing import Any

from tests.reward_tuning.recipes_for_tests import write_recipe


def change(
    mean: float, low: float, high: float, up: int, down: int, p: float, adjusted: float
) -> dict[str, float]:
    found = {"mean": mean, "low": low, "high": high, "p": p, "p_adjusted": adjusted}
    return found | {"up": up, "down": down, "prompts": 128}


FOUND: dict[str, Any] = {
    "start": "base",
    "trained_on": ["hps"],
    "never_trained_on": ["clip_held_out"],
    "primary": "clip_held_out",
    "prompts": 128,
    "seeds": 1,
    "base": {
        "hps": 0.8289,
        "clip_held_out": 0.5191,
        "motion": 0.0101,
        "oracle": 0.41,
        "oracle_shape": 0.41,
        "oracle_colour": 1.0,
        "oracle_tone_off": 0.05,
    },
    "tuned": {
        "hps": 0.8333,
        "clip_held_out": 0.5190,
        "motion": 0.0098,
        "oracle": 0.59,
        "oracle_shape": 0.59,
        "oracle_colour": 1.0,
        "oracle_tone_off": 0.04,
    },
    "difference": {
        "hps": change(0.0044, 0.0027, 0.0061, 90, 38, 0.0002, 0.0012),
        "clip_held_out": change(-0.0001, -0.001, 0.0009, 60, 68, 0.8, 0.8),
        "motion": change(-0.0003, -0.0005, -0.0001, 40, 88, 0.002, 0.008),
        "oracle": change(0.18, 0.099, 0.266, 30, 7, 0.0002, 0.0012),
        "oracle_shape": change(0.18, 0.099, 0.266, 30, 7, 0.0002, 0.0012),
        "oracle_colour": change(0.0, -0.0284, 0.0284, 0, 0, 1.0, 1.0),
        "oracle_tone_off": change(-0.01, -0.02, -0.001, 30, 98, 0.03, 0.06),
    },
    "rendered": {"hps": 0.86, "oracle": 1.0},
}


def finished_run(tmp_path: Path) -> Path:
    """Write a finished run into a folder whose name a shell would split."""
    write_recipe(tmp_path / "a run")
    (tmp_path / "a run" / "evaluation.json").write_text(json.dumps(FOUND))
    (tmp_path / "a run" / "samples").mkdir()
    samples = [{"file": "00.mp4", "prompt": "a star, it's red", "seed": 1}]
    (tmp_path / "a run" / "samples" / "prompts.json").write_text(json.dumps(samples))
    return tmp_path / "a run"

"""The table of levers, on made-up runs whose differences are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from benchmarks.contestants import Contestant, published_arm
from benchmarks.levers import METRICS, Published, changes, loop_of, report, seconds_to
from benchmarks.methods import read
from benchmarks.trainee import Trainee
from reward_tuning.lora.adapter import adapter_state

PROMPTS = 8


def point(seconds: float, gain: float) -> dict[str, Any]:
    """Every metric of every prompt is higher than the base's by `gain`, whose prompts differ."""
    values = {name: [place + gain for place in range(PROMPTS)] for name in METRICS}
    return {"steps": int(seconds), "seconds": seconds, "peak_bytes": 10**9, "values": values}


def line(arm: str, seed: int, *points: dict[str, Any]) -> dict[str, Any]:
    return {"arm": arm, "seed": seed, "points": list(points)}


LINES = [
    line("base", 0, point(0.0, 0.0)),
    line("base", 1, point(0.0, 0.5)),
    line("today", 0, point(50.0, 1.0), point(100.0, 2.0)),
    line("today", 1, point(50.0, 1.5), point(100.0, 2.5)),
    line("fast", 0, point(20.0, 2.0), point(40.0, 3.0)),
    line("fast", 1, point(30.0, 2.5), point(50.0, 3.5)),
    line("slow", 0, point(100.0, 0.5)),
]


def test_changes_are_against_the_base_of_the_same_seed() -> None:
    found = changes(LINES)
    assert [row["hps"].mean for row in found["today"]] == pytest.approx([1.0, 2.0])
    assert [row["seconds"] for row in found["fast"]] == [25.0, 45.0]
    assert [row["runs"] for row in found["slow"]] == [1]
    assert found["slow"][0]["oracle"].mean == pytest.approx(0.5)


def test_seconds_to_a_gain_are_linear_between_points() -> None:
    rows = changes(LINES)["today"]
    assert seconds_to(rows, 0.5) == pytest.approx(25.0)
    assert seconds_to(rows, 1.8) == pytest.approx(90.0)
    assert seconds_to(rows, 2.1) is None


def test_the_report_names_ratios_and_what_is_not_reached(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in LINES), encoding="utf-8")
    text = report(read(file), "today", 0.9)
    assert "Seconds to 90 % of today's last gain, +1.80000 HPS:" in text
    assert "- today (2 seeds): 90, ratio 1.00" in text
    assert "- fast (2 seeds): 22, ratio 0.25" in text  # 1.8 of 2.0 in 25 s
    assert "- slow (1 seeds): not reached" in text
    assert "| fast | 45 | 45 | +3.0000 [" in text


@pytest.mark.slow
def test_the_published_loop_is_an_arm() -> None:
    assert loop_of("tiny-demo") == (Trainee, "tiny-demo", ())
    kind, recipe, overrides = loop_of("published:last")
    assert kind is Published
    small = ["sampling.steps=2", "train.batch_size=1"]
    threads = torch.get_num_threads()
    try:
        trainee = kind(recipe, [*overrides, *small], seed=0, clock="process", prompts=2)
    finally:
        torch.set_num_threads(threads)
    trainee.step()
    contestant = Contestant(published_arm("last", 1), Accelerator(), [*small, "seed=0"])
    contestant.step()
    theirs = adapter_state(contestant.parts.sampler.generator.transformer)
    assert trainee.seconds > 0.0
    assert any(tensor.any() for name, tensor in theirs.items() if "lora_B" in name)
    for name, tensor in trainee.adapter().items():
        torch.testing.assert_close(tensor, theirs[name])

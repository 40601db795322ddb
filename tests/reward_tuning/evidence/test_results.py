"""evaluation.json and evaluation.csv of an evaluation."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.evidence.metric_names import MetricNames
from reward_tuning.evidence.results import results, write_results
from reward_tuning.evidence.sides_plan import planned_sides
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.tuning.evaluation import SideScores, evaluation_seed
from tests.reward_tuning.evidence.test_sides_plan import adapter, setup
from tests.reward_tuning.full_disk import largest_file

NAMES = MetricNames({"hps": "x"}, ["hps"], None, False)
PROMPTS = [
    Prompt('a, long "cat"', "a cat", category="animals"),
    Prompt("一只猫", "一只猫"),
    Prompt("=1+1", "-"),
]


def side(shift: float, **more: dict[int, float]) -> SideScores:
    hps = {0: 1.0 + shift, 1: 2.0 + shift, 2: 4.0 + shift}
    motion = {0: 0.1, 1: 0.2, 2: 0.3}
    return SideScores(
        {"hps": hps, "motion": {i: v * (1 + shift) for i, v in motion.items()}} | more
    )


def found() -> dict[str, object]:
    some = replace(setup([25], [6.0]), prompts=PROMPTS, trained_on=["hps"], primary="hps", seed=3)
    sides = planned_sides(some, [adapter("a")], [0.5, 1.0])
    drift = {0: 0.1, 1: float("nan"), 2: 0.3}
    scores = [side(0.0), side(0.5), side(1.0, drift=drift)]
    return results(some, NAMES, sides, scores, [{}, {}, {1: "clips/02-a/01.mp4"}])


def test_the_content(tmp_path: Path) -> None:
    write_results(tmp_path, found())
    read = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert read == found()
    assert (read["format"], read["prompts"], read["primary"]) == (2, 3, "hps")
    assert [one["name"] for one in read["sides"]] == ["base", "a x0.5", "a"]
    assert [one["against"] for one in read["sides"]] == [None, 0, 0]
    base, half, full = read["sides"]
    assert full["ratios"]["motion"] == pytest.approx(2.0)
    assert half["ratios"]["motion"] == pytest.approx(1.5)
    assert "ratios" not in base
    assert full["scores"]["drift"] == [0.1, None, 0.3]
    assert full["means"]["drift"] == pytest.approx(0.2)
    assert full["clips"] == {"1": "clips/02-a/01.mp4"}
    # what readers of a run's file look for is that of the side that decides: strength 1
    assert read["tuned"]["hps"] == pytest.approx(7 / 3 + 1)
    assert read["base"]["hps"] == pytest.approx(7 / 3)
    assert read["difference"] == full["difference"]
    assert read["comparisons"] == 4
    assert read["questions"][0]["seed"] == evaluation_seed(3, 0, 0)
    assert read["questions"][0]["category"] == "animals"


def test_the_table(tmp_path: Path) -> None:
    write_results(tmp_path, found())
    with (tmp_path / "evaluation.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    last = rows[6]
    assert (last["side"], last["prompt"], last["category"]) == ("a", 'a, long "cat"', "animals")
    assert (float(last["hps"]), last["drift"], last["strength"]) == (2.0, "0.1", "1.0")
    assert rows[7]["drift"] == ""  # not finite
    assert rows[0]["drift"] == ""


def test_a_full_disk_leaves_no_result(tmp_path: Path) -> None:
    with largest_file(100), pytest.raises(TuningError, match="same command then continues"):
        write_results(tmp_path, found())
    assert list(tmp_path.iterdir()) == []

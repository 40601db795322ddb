"""Records of the sides: one value a prompt, missing ones as null, differences on shared prompts."""

from __future__ import annotations

import json
import math
import random

import pytest

from reward_tuning.files.finite_json import without_infinities
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.tuning.evaluation import SideScores
from reward_tuning.tuning.sides import (
    Side,
    question_records,
    side_records,
)

BASE = {"hps": {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}, "motion": {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}}


def base() -> Side:
    return Side("base", SideScores(BASE), 16, 5.0)


def test_a_side_on_some_prompts_is_compared_on_those() -> None:
    part = {"hps": {0: 1.5, 1: 2.7}, "motion": {0: 0.1, 1: 0.1}}
    side = Side(
        "half", SideScores(part), 16, 5.0, "lora", "ab", 0.5, 0, {1: "b.mp4", 0: "a.mp4"}, {"x": 1}
    )
    first, second = side_records([base(), side], prompts=4, seeds=1, seed=0)
    assert first["scores"] == {"hps": [1.0, 2.0, 3.0, 4.0], "motion": [0.1, 0.2, 0.3, 0.4]}
    assert first["means"] == pytest.approx({"hps": 2.5, "motion": 0.25})
    assert (first["against"], first["adapter"], first["adapter_sha256"]) == (None, None, None)
    assert "difference" not in first
    assert second["scores"]["hps"] == [1.5, 2.7, None, None]
    assert second["means"] == pytest.approx({"hps": 2.1, "motion": 0.1})
    assert (second["name"], second["strength"], second["against"]) == ("half", 0.5, 0)
    assert (second["adapter"], second["adapter_sha256"], second["x"]) == ("lora", "ab", 1)
    assert (second["steps"], second["guidance_scale"]) == (16, 5.0)
    assert list(second["clips"].items()) == [("0", "a.mp4"), ("1", "b.mp4")]
    hps = second["difference"]["hps"]
    assert hps["mean"] == pytest.approx((0.5 + 0.7) / 2)  # of the two shared prompts alone
    assert (hps["up"], hps["down"], hps["prompts"]) == (2, 0, 2)
    assert second["difference"]["motion"]["mean"] == pytest.approx(-0.05)


def test_scores_that_are_not_finite_are_left_out_and_null() -> None:
    tuned = {
        "hps": {0: math.nan, 1: 3.0, 2: 3.5, 3: 5.0},
        "motion": {0: math.inf, 1: math.nan, 2: 0.3, 3: math.nan},
    }
    side = Side("tuned", SideScores(tuned), 16, 5.0, against=0)
    _, found = side_records([base(), side], prompts=4, seeds=1, seed=0)
    assert found["means"] == pytest.approx({"hps": 11.5 / 3, "motion": 0.3})
    assert found["difference"]["hps"]["mean"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert found["difference"]["hps"]["prompts"] == 3
    assert "motion" not in found["difference"]  # one prompt has no interval
    plain = without_infinities(found)
    assert plain["scores"] == {"hps": [None, 3.0, 3.5, 5.0], "motion": [None, None, 0.3, None]}
    json.dumps(plain, allow_nan=False)


def test_questions() -> None:
    prompts = [Prompt("a long cat", "a cat", category="animals"), Prompt("一只猫", "一只猫")]
    assert question_records(prompts, lambda index: 10 + index) == [
        {"prompt": "a long cat", "reward_prompt": "a cat", "category": "animals", "seed": 10},
        {"prompt": "一只猫", "reward_prompt": "一只猫", "category": None, "seed": 11},
    ]


def test_p_values_are_corrected_in_families() -> None:
    """Holm by hand: the k-th smallest of n is multiplied by n - k + 1."""
    draw = random.Random(0)
    before = {m: {i: draw.random() for i in range(12)} for m in ("a", "b", "c")}
    sides = [Side("base", SideScores(before), 16, 5.0)]
    for name in ("one", "two"):
        after = {
            m: {i: v + draw.gauss(0.1, 0.2) for i, v in of.items()} for m, of in before.items()
        }
        sides.append(Side(name, SideScores(after), 16, 5.0, against=0))

    def found(decisive: int | None) -> dict[tuple[str, str], tuple[float, float]]:
        records = side_records(sides, prompts=12, seeds=1, seed=0, primary="b", decisive=decisive)
        return {
            (record["name"], metric): (one["p"], one["p_adjusted"])
            for record in records[1:]
            for metric, one in record["difference"].items()
        }

    def check(of: dict[tuple[str, str], tuple[float, float]], *family: tuple[str, str]) -> None:
        p_values = sorted(of[key][0] for key in family)
        highest, expected = 0.0, []
        for k, p in enumerate(p_values):
            highest = max(highest, min(1.0, p * (len(family) - k)))
            expected.append(highest)
        assert sorted(of[key][1] for key in family) == pytest.approx(expected)

    of = found(decisive=1)
    assert of["one", "b"][0] == of["one", "b"][1]
    check(of, ("one", "a"), ("one", "c"))
    check(of, ("two", "a"), ("two", "b"), ("two", "c"))
    of = found(decisive=None)
    check(of, ("one", "b"), ("two", "b"))
    check(of, ("one", "a"), ("one", "c"), ("two", "a"), ("two", "c"))

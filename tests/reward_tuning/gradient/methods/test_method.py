"""What every method declares of itself agrees with the plans it draws."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods import METHODS, make_plan
from tests.reward_tuning.gradient.methods.checks import seeded

NUMBERED = ("draft_k", "drtune", "flowbp_sparse", "adjoint_matching")
CASES: list[dict[str, Any]] = [
    *({"kind": kind, **({"active_steps": 3} if kind in NUMBERED else {})} for kind in METHODS),
    {"kind": "drtune", "active_steps": 2, "early_stop": False},
    {"kind": "leapalign", "leap_floor": None},
    {"kind": "flowbp_lagrange", "leap_floor": None},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_declarations_agree_with_the_plans(case: dict[str, Any]) -> None:
    method = METHODS[case["kind"]].model_validate(case)
    plans = [method.plan(draw, sigma_table(16)) for draw in [seeded()] for _ in range(20)]
    assert {plan.reads_end for plan in plans} == {not method.not_at_end}
    assert {plan.leap_floor is not None for plan in plans} == {method.weights_clips}
    assert {plan.reward_input == "state" for plan in plans} == {method.judges_latents}


def test_steps_wanted_is_the_key_that_a_list_replaces() -> None:
    easyanimate = METHODS["easyanimate"]
    assert easyanimate.model_validate({"kind": "easyanimate", "active_steps": 7}).steps_wanted == 7
    listed = easyanimate.model_validate({"kind": "easyanimate", "steps_list": [1, 2]})
    assert listed.steps_wanted == 0
    assert METHODS["refl"].model_validate({"kind": "refl"}).steps_wanted == 0


def test_unknown_kinds_and_keys_are_refused() -> None:
    sigmas = sigma_table(10)
    with pytest.raises(TuningError, match=r"method\.kind is 'reflow'; allowed are draft, "):
        make_plan("reflow", seeded(), sigmas)
    with pytest.raises(TuningError, match=r"method\.active_step is 3; Extra inputs"):
        make_plan("draft", torch.Generator(), sigmas, active_step=3)


def test_methods_are_read_without_torch() -> None:
    code = "import sys, reward_tuning.gradient.methods; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

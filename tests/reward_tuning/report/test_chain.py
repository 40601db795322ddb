import pytest

from base_model.sampling.sample import start_step
from base_model.sampling.sigmas import sigma_table
from reward_tuning.report.chain import chain_figures, sigma_levels
from tests.reward_tuning.report.evaluation_folder import metrics_rows


@pytest.mark.parametrize(("steps", "shift", "strength"), [(8, 1.0, 1.0), (25, 0.3, 0.5), (1, 1, 1)])
def test_sigma_levels_are_those_of_the_rollout(steps: int, shift: float, strength: float) -> None:
    found = sigma_levels({"steps": steps, "shift": shift, "strength": strength})
    table = sigma_table(steps, shift)[start_step(steps, strength) :]
    assert found == pytest.approx(table.tolist(), abs=1e-6)


@pytest.mark.parametrize("steps", [None, "8", 0, True, 10**9])
def test_no_levels_without_a_sound_number_of_steps(steps: object) -> None:
    assert sigma_levels({"steps": steps}) == []


def test_the_plan_counts_the_training_steps_in_which_a_step_was_active() -> None:
    plan, norms = chain_figures(metrics_rows(4), {"sampling": {"steps": 6, "shift": 1.0}})
    bars, sigmas = plan.traces
    assert bars["y"] == [0, 1.0, 0.5, 0.5, 0, 0]
    assert len(sigmas["x"]) == 7
    (heat,) = norms.traces
    assert heat["x"] == [1, 2, 3, 4]
    # log10 of 0.01 and 0.1; step 3 is active in odd training steps
    assert heat["z"][1] == pytest.approx([-2] * 4)
    assert heat["z"][3] == [pytest.approx(-1), None, pytest.approx(-1), None]


def test_long_trainings_are_averaged() -> None:
    _, norms = chain_figures(metrics_rows(1000), {})
    (heat,) = norms.traces
    assert len(heat["x"]) == 112  # ceil(1000 / 9) columns of 9 steps, at most 120
    assert "mean of 9 training steps" in norms.caption


def test_a_run_without_active_steps_has_no_chain() -> None:
    assert chain_figures([{"step": 1, "loss": 1.0}], {}) == []


@pytest.mark.parametrize("damaged", [5, True, "x", {"step": 1}, [3, {"step": -1}, {"step": 10**9}]])
def test_active_steps_of_a_damaged_row_are_left_out(damaged: object) -> None:
    rows = metrics_rows(4)
    assert chain_figures([{"step": 5, "active_steps": damaged}], {}) == []
    infinite = [{"step": 2, "grad_norm": float("inf")}]
    assert len(chain_figures([*rows, {"step": 5, "active_steps": infinite}], {})) == 2

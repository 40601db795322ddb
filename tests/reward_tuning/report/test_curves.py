import pytest

from reward_tuning.report.curves import cost_curves, guard_curves, training_curves
from reward_tuning.report.evaluations import Checkpoint
from tests.reward_tuning.report.evaluation_folder import guard_rows, metrics_rows

RECIPE = {"guards": {"motion": {"action": "warn", "low": 0.8, "high": 1.25}}}


def test_each_reward_is_drawn_with_its_trailing_mean_and_the_chosen_step() -> None:
    reward, norm = training_curves(metrics_rows(20), Checkpoint(step=10))
    assert (reward.title, norm.title) == ("hps", "gradient norm")
    each, mean = reward.traces
    assert each["y"][:2] == pytest.approx([0.801, 0.802])
    assert mean["y"][-1] == pytest.approx((0.819 + 0.82) / 2)
    assert reward.layout["shapes"][0]["x0"] == 10
    assert "chosen: step 10" in reward.layout["annotations"][0]["text"]
    assert "ends at 0.8195" in reward.text


def test_a_training_without_rewards_shows_its_loss() -> None:
    (loss,) = training_curves([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}], None)
    assert loss.title == "loss"


def test_guards_are_drawn_with_thresholds_and_fired_rules() -> None:
    held, motion, diversity, drift = guard_curves(
        guard_rows(), metrics_rows(20), RECIPE, ["clip_held_out"], None
    )
    assert held.title == "clip_held_out"
    assert held.traces[0]["x"] == [0, 10, 20]
    assert held.traces[0]["error_y"]["array"] == pytest.approx([0, 0.01, 0.01])
    assert motion.traces[0]["y"] == pytest.approx([1, 0.8, 0.7])
    assert [s["y0"] for s in motion.layout["shapes"] if s.get("xref")] == [0.8, 1.25]
    fired = [a["text"] for a in motion.layout["annotations"] if a.get("yref")]
    assert fired == ["motion: warn"]
    assert motion.caption == "The rule of motion is set to warn."
    assert [one.title for one in (diversity, drift)] == ["diversity", "drift"]
    assert diversity.caption == ""


def test_without_guards_the_motion_of_the_training_is_drawn() -> None:
    (motion,) = guard_curves([], metrics_rows(5), {}, [], None)
    assert motion.title == "motion of the training's latents"


def test_seconds_are_stacked_and_memory_is_in_gigabytes() -> None:
    seconds, memory = cost_curves(metrics_rows(3))
    assert [trace["name"] for trace in seconds.traces] == ["rollout", "sweep"]
    assert {trace["stackgroup"] for trace in seconds.traces} == {"phases"}
    assert memory.traces[1]["y"] == [2.0, 2.0, 2.0]

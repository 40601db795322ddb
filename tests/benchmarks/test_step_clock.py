"""Seconds of a step's parts, and the rate of matrix products, against a clock of the test's own."""

from __future__ import annotations

import pytest
import torch

from benchmarks import step_clock
from benchmarks.step_clock import StepClock, matrix_rate
from reward_tuning.estimate.step_parts import REST, Parts
from reward_tuning.progress import ProgressEvent

CPU = torch.device("cpu")


def test_seconds_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(step_clock.time, "perf_counter", lambda: now)
    clock = StepClock(CPU)
    parts = Parts(clock)
    parts.go("decoder")  # before the clock begins
    parts.go(REST)
    clock.begin()
    now = 1.0
    parts.on_progress(ProgressEvent("training", phase="rollout"))
    now = 3.0
    with parts.at("both"):
        now = 7.0
    now = 8.0
    parts.on_progress(ProgressEvent("loading", phase="other"))  # of no step
    with parts.at("both"):
        now = 18.0
    assert clock.end(parts.where) == {
        (REST, REST): 1.0,
        ("rollout", REST): 3.0,
        ("rollout", "both"): 14.0,
    }


def test_the_backward_pass_is_where_the_gradient_is() -> None:
    seen = []
    parts = Parts(seen.append)
    x = torch.ones(2, requires_grad=True)
    inner = parts.entrance(x, "decoder")
    with parts.at("decoder"):
        y = inner * 2
        y.register_hook(lambda gradient: seen.append(parts.where))
    y = parts.exit(y, "decoder")
    judged = parts.exit(y.sum(), "judges")
    seen.clear()
    judged.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0]
    assert seen == [(REST, REST), (REST, "judges"), (REST, "decoder"), (REST, "decoder")]
    assert parts.where == (REST, REST)


def test_the_part_ends_with_the_pass_where_a_leaf_needs_no_gradient() -> None:
    parts = Parts()
    weight = torch.ones(2, requires_grad=True)
    parts.exit((weight * torch.ones(2)).sum(), "positive").backward()
    assert parts.where == (REST, REST)


def test_matrix_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 0.1, 0.2, 0.4, 0.4])
    monkeypatch.setattr(step_clock.time, "perf_counter", lambda: next(ticks))
    # Begun at 0; four products before each look at 0.1 and 0.2; ended at 0.4.
    assert matrix_rate(CPU, torch.float32, [8]) == {8: pytest.approx(2 * 8**3 * 8 / 0.4)}

"""What the benchmark of rollouts compares, and that it measures it."""

from __future__ import annotations

import json

import pytest

from benchmarks.rollouts import EXACT, main, options


def test_every_option_is_compared_with_the_exact_rollout() -> None:
    found = options(["0.1", "0.25"], compile_too=True)
    assert found[EXACT] == []
    assert found["cache 0.25"] == ['rollout.cache={"kind":"first-block","threshold":0.25}']
    assert next(iter(found)) == EXACT  # the others are held against it
    assert len(found) == 7
    assert "compile" not in options([], compile_too=False)


@pytest.mark.slow
def test_it_measures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["sampling.steps=6", "sampling.frames=1", "method.active_steps=1", "train.batch_size=1"]
    arguments = ["rollouts", "--batches", "1", *small, "--cache", "1e-9", "1000"]
    monkeypatch.setattr("sys.argv", arguments)
    main()
    found = json.loads(capsys.readouterr().out)["options"]
    assert found[EXACT]["end_error"] == found["cache 1e-9"]["end_error"] == 0.0
    assert found["cache 1e-9"]["gradient_cosine"] == pytest.approx(1.0)
    assert found["cache 1000"]["full_steps"] < found[EXACT]["full_steps"] == 6
    assert found["cache 1000"]["gradient_cosine"] < 1.0 - 1e-4
    assert 0.0 < found["bfloat16"]["end_error"] < 0.1
    assert "end_error" not in found["1 restart"]
    assert found["1 restart"]["steps"] > found["2 active sets"]["steps"] == 6

"""What the benchmark of intervals of guidance compares, and that it measures it."""

from __future__ import annotations

import json

import pytest

from benchmarks.guidance_interval import NONE, PLAIN, Row, main, table


def test_the_table() -> None:
    rows = [Row(16, 4, 1.0, 3.0, 1.0, 1.0), Row(8, 2, 3.0, 5.0, 0.5, 2.0)]
    assert table({PLAIN: rows}) == {
        PLAIN: {
            "rollout_calls": 12,
            "sweep_calls": 3,
            "rollout_seconds": 2.0,
            "batch_seconds": 4.0,
            "cosine": 0.75,
            "length": 1.5,
            "lowest_cosine": 0.5,
        }
    }


def test_it_measures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Four levels, 1, 0.845, 0.577 and 0.003, of which [0.6, 0.9] guides one; two are swept."""
    small = ["sampling.steps=4", "sampling.frames=1", "train.batch_size=1"]
    method = ["method.active_steps=2", "method.early_stop=false"]
    words = ["--batches", "1", "--prompts", "1", "--steps", "4", "--interval", "0.6", "0.9"]
    monkeypatch.setattr("sys.argv", ["guidance", *small, *method, *words])
    main()
    arms = json.loads(capsys.readouterr().out)["arms"]
    calls = {name: (of["rollout_calls"], of["sweep_calls"]) for name, of in arms.items()}
    assert calls == {PLAIN: (8, 2), "[0.6, 0.9]": (5, 2), NONE: (4, 2)}
    assert [of["clip_calls"] for of in arms.values()] == [8, 5, 4]
    assert arms[PLAIN]["cosine"] == pytest.approx(1.0)
    assert arms[PLAIN]["psnr"] is None
    for arm in ("[0.6, 0.9]", NONE):
        assert arms[arm]["cosine"] < 0.99
        assert arms[arm]["psnr"] < 60.0

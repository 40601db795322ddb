"""What the benchmark of `generate`'s options measures."""

from __future__ import annotations

import json
import math

import pytest
import torch

from benchmarks.sampling import Row, held_out_prompts, main, psnr, table


def test_psnr() -> None:
    black = torch.zeros(1, 2, 3, 4, 4)
    assert psnr(black, black) == math.inf
    assert psnr(black, black + 0.1) == pytest.approx(20.0, abs=1e-4)


def test_the_table() -> None:
    rows = {
        "plain": [Row(2.0, 25, 0.0, math.inf, True), Row(4.0, 25, 0.0, math.inf, False)],
        "cached": [Row(1.0, 10, 0.1, 30.0, False), Row(1.0, 12, 0.3, 20.0, False)],
    }
    found = table(rows)
    assert found["plain"]["psnr"] is None
    assert found["cached"] == {
        "seconds": 1.0,
        "speed": 3.0,
        "full_steps": 11,
        "latent_error": pytest.approx(0.2),
        "psnr": 25.0,
        "lowest_psnr": 20.0,
        "all_right": 0.0,
        "won": 0,
        "lost": 1,
    }


def test_both_languages_by_turns() -> None:
    english, chinese = held_out_prompts(2)
    assert english.isascii()
    assert not chinese.isascii()


@pytest.mark.slow
def test_it_measures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["sampling", "--prompts", "2", "--steps", "4", "--cache", "1e-9", "1000"]
    monkeypatch.setattr("sys.argv", arguments)
    main()
    found = json.loads(capsys.readouterr().out)["options"]
    assert found["--cache 1e-9"]["latent_error"] == found["plain"]["latent_error"] == 0.0
    assert found["--cache 1e-9"]["psnr"] is None
    assert found["--cache 1e-9"]["full_steps"] == found["plain"]["full_steps"] == 4
    assert found["--cache 1000"]["full_steps"] == 1
    assert found["--cache 1000"]["latent_error"] > 0.01
    assert found["--cache 1000"]["psnr"] < 40

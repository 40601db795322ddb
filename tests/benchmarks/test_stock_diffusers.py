"""What the benchmark of stock diffusers measures."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks.stock_diffusers import Row, main, sizes_of, table


def test_the_table() -> None:
    rows = {
        "corrected": [Row(0.0, 0.0, 0.0, math.inf)],
        "stock": [Row(0.1, 0.3, 0.2, 30.0), Row(0.3, 0.5, 0.4, 20.0)],
    }
    assert table(rows) == {
        "corrected": dict.fromkeys(("velocity_error", "guided_velocity_error", "latent_error"), 0.0)
        | {"psnr": None, "lowest_psnr": None},
        "stock": {
            "velocity_error": pytest.approx(0.2),
            "guided_velocity_error": pytest.approx(0.4),
            "latent_error": pytest.approx(0.3),
            "psnr": 25.0,
            "lowest_psnr": 20.0,
        },
    }


def test_sizes() -> None:
    assert sizes_of(["64x96", "96x64"]) == [(64, 96), (96, 64)]


def test_it_measures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """At 3:2 the text stream is the whole difference, at 1:1 the rotary grid is most of it."""
    arguments = ["--prompts", "1", "--steps", "2", "--frames", "1", "--sizes", "64x64", "32x48"]
    monkeypatch.setattr("sys.argv", ["stock", *arguments])
    main()
    sizes = json.loads(capsys.readouterr().out)["sizes"]
    for found in sizes.values():
        assert found["corrected"]["velocity_error"] == 0.0
        assert found["corrected"]["psnr"] is None
        assert found["stock"]["velocity_error"] > 1e-3
        assert found["padded to 256"]["velocity_error"] > 1e-3
    assert sizes["32x48"]["text stream mended"]["velocity_error"] < 1e-6
    assert sizes["64x64"]["text stream mended"]["velocity_error"] > 1e-2

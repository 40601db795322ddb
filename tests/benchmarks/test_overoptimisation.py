"""The study of over-optimisation: its report from its lines, and one real arm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.overoptimisation import (
    ARMS,
    METRICS,
    RECIPE,
    main,
    noticed,
    read,
    sheet,
    table,
)
from reward_tuning.schema.loading import load_recipe


def line(arm: str, *oracle: float) -> dict[str, Any]:
    points = [
        {
            "at": str(30 * n),
            "values": {key: [0.5, 0.5] for key in METRICS} | {"oracle": [0.0, share]},
        }
        for n, share in enumerate(oracle)
    ]
    return {"arm": arm, "points": points, "seconds_a_step": 1.5}


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_is_a_recipe(name: str) -> None:
    assert load_recipe(RECIPE, ARMS[name]).method.kind == "drtune"


def test_the_table_compares_with_the_first_point() -> None:
    rows = table([line("pushed", 0.2, 0.2, 0.6), line("target", 0.0, 1.0)]).splitlines()
    assert len(rows) == 2 + 3
    assert rows[2].startswith("| pushed | 30 | +0.00 [")
    assert "| +20 [" in rows[3]
    assert "| +50 [" in rows[4]


def test_harm_is_noticed_where_the_whole_interval_is_below_the_base() -> None:
    harmed = line("pushed", 1.0, 1.0, 1.0)
    for point in harmed["points"]:
        point["values"]["oracle"] = [1.0] * 20
    harmed["points"][1]["values"]["oracle"] = [1.0] * 19 + [0.0]  # the interval still holds 0
    harmed["points"][2]["values"]["oracle"] = [1.0] * 10 + [0.0] * 10
    rows = noticed([harmed]).splitlines()
    assert rows[0] == "| arm | HPS | held-out judge | oracle | motion | seconds a step |"
    assert rows[2] == "| pushed | - | - | step 60 | - | 1.50 |"


def test_a_row_of_the_sheet_is_a_moment() -> None:
    clips = {f"{label}/{i}": torch.full((5, 3, 8, 8), 0.1 * i) for label in "ab" for i in range(4)}
    clips["b/2"][4] = 1.0
    picture = sheet(clips, ["a", "b"])
    assert picture.shape == (1, 3, 16, 4 * 3 * 8)
    bright = (picture[0, 0] == 1.0).nonzero()
    assert bright.min(dim=0).values.tolist() == [8, 8 * 8]  # second row, third clip's last frame
    assert bright.max(dim=0).values.tolist() == [15, 9 * 8 - 1]


@pytest.mark.slow
def test_an_arm_trains_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--steps", "2", "--every", "1", "--prompts", "4", "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["overoptimisation", "--one", "pushed", *options])
    main()
    (made,) = read(tmp_path)
    assert [point["at"] for point in made["points"]] == [
        "0",
        "1",
        "2",
        "strength 0.5",
        "strength 0.25",
    ]
    base, _, last, half, _ = (point["values"]["hps"] for point in made["points"])
    assert len({*map(tuple, (base, last, half))}) == 3
    monkeypatch.setattr("sys.argv", ["overoptimisation", "--report", str(tmp_path)])
    main()
    assert capsys.readouterr().out.count("| pushed |") == 4 + 1

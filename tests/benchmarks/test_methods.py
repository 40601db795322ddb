"""The benchmark of methods: its numbers from its lines, and one real run."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.methods import (
    BASE,
    JUDGES,
    METRICS,
    RECIPES,
    all_runs,
    differences,
    draw,
    main,
    read,
    table,
)
from reward_tuning.gradient.methods import METHODS
from reward_tuning.schema.loading import load_recipe
from reward_tuning.statistics.bootstrap import paired_difference


def line(recipe: str, seed: int, **values: list[float]) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "seed": seed,
        "steps": 10,
        "seconds": 20.0,
        "peak_bytes": 10**9 + seed,
        "curve": [[1.0 + step, 0.5 + 0.01 * step] for step in range(10)],
        "values": {metric: [0.5, 0.5, 0.5, 0.5] for metric in METRICS} | values,
        "settings": {"seconds": 20.0, "clock": "wall", "prompts": 4, "clips": 2},
    }


LINES = [
    line(BASE, 0),
    line(BASE, 1, hps=[0.7] * 4),
    line("good", 0, hps=[0.6, 0.6, 0.7, 0.7], clip_held_out=[0.6, 0.7, 0.6, 0.7]),
    line("good", 1, hps=[0.9, 0.9, 1.0, 1.0]),
    line("bad", 0, clip_held_out=[0.4] * 4),
    line("bad", 1),
]


def test_differences_are_averaged_over_seeds_and_paired_by_prompt() -> None:
    found = differences(LINES)
    assert set(found) == {"good", "bad"}
    # seed 0: +0.1 +0.1 +0.2 +0.2; seed 1, against its own base: +0.2 +0.2 +0.3 +0.3
    assert found["good"]["hps"].mean == pytest.approx(0.2)
    by_hand = paired_difference([0.0] * 4, [0.15, 0.15, 0.25, 0.25])
    assert found["good"]["hps"].low == pytest.approx(by_hand.low)
    assert found["good"]["hps"].high == pytest.approx(by_hand.high)
    assert found["good"]["spread"]["hps"] == pytest.approx(0.1)
    assert found["bad"]["clip_held_out"].mean == pytest.approx(-0.05)
    assert found["good"]["peak_bytes"] == 10**9 + 1
    assert found["good"]["seconds_a_step"] == 2.0


def test_the_table_has_the_best_held_out_judge_first() -> None:
    rows = table(LINES).splitlines()
    assert rows[2].startswith("| `good` | +0.0750 [")
    assert rows[3].startswith("| `bad` | -0.0500 [")
    assert all(row.count("|") == rows[0].count("|") for row in rows)


def test_one_clip_a_prompt_has_no_diversity() -> None:
    lines = [line(BASE, 0), line("good", 0, hps=[0.6, 0.6, 0.7, 0.7])]
    for one in lines:
        del one["values"]["diversity"]
    assert "diversity" not in differences(lines)["good"]
    head, _, row = table(lines).splitlines()
    cells = dict(zip(head.split("|"), row.split("|"), strict=True))
    assert cells[" diversity, % "].strip() == ""
    assert cells[" HPS "].startswith(" +0.1500 [")


def test_the_picture_is_of_what_was_gained(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs the extra `pictures`")
    still = line("still", 0)
    draw([*LINES, still], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert "still" not in table([*LINES, still])


def test_every_method_takes_part() -> None:
    kinds = {load_recipe(name).method.kind for name in RECIPES}
    assert kinds == set(METHODS)


def test_runs_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    output = tmp_path / "runs.jsonl"
    output.write_text(json.dumps(LINES[0]) + "\n")
    arguments = Namespace(
        output=output,
        seconds=21.0,
        clock="wall",
        prompts=4,
        clips=2,
        seeds=[0],
        recipes=["tiny-refl-hps"],
        arm=[],
    )
    with pytest.raises(SystemExit, match="runs of other settings"):
        all_runs(arguments)
    assert read(output) == [LINES[0]]


@pytest.mark.slow
def test_one_run_trains_and_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    arms = {BASE: [JUDGES], "fast": ["tiny-refl-hps", "sampling.steps=4"]}
    for label, arm in arms.items():
        options = ["--seconds", "0.1", "--clock", "process", "--prompts", "2", "--clips", "2"]
        monkeypatch.setattr("sys.argv", ["methods", "--one", "3", *options, "--arm", label, *arm])
        main()
        found[label] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found[BASE]["steps"], found["fast"]["steps"]) == (0, 1)
    assert found["fast"]["overrides"] == ["sampling.steps=4"]
    assert found["fast"]["machine"]["threads"] == 1
    assert found["fast"]["seconds"] > 0.1
    values = [found[name]["values"] for name in found]
    for metric in METRICS:
        assert len(values[0][metric]) == len(values[1][metric]) == 2
    assert values[0]["hps"] != values[1]["hps"]

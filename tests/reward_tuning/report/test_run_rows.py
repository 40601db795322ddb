from pathlib import Path

import pytest

from reward_tuning.report.run_rows import column, names, number, read_rows, trailing_mean


def test_half_a_row_and_foreign_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2}\n[]\n{"loss": 1}\n{"step": 2, "lo')
    assert read_rows(path) == [{"step": 1, "loss": 2}]
    assert read_rows(tmp_path / "none.jsonl") == []


def test_numbers_inside_rows() -> None:
    row = {"step": 1, "reward": {"hps": 0.5, "bad": None}, "drift": True}
    assert number(row, "reward", "hps") == 0.5
    assert [number(row, *keys) for keys in (("reward", "bad"), ("drift",), ("step", "a"))] == [
        None
    ] * 3
    assert column([row, {"step": 2}], "reward", "hps") == [0.5, None]
    assert names([{"step": 1}, row], "reward") == ["hps", "bad"]


def test_trailing_mean_skips_what_is_missing() -> None:
    assert trailing_mean([1.0, None, 3.0, 5.0], 2) == [1.0, 1.0, 3.0, 4.0]
    assert trailing_mean([None, 2.0], 3) == [None, pytest.approx(2.0)]


def test_what_no_curve_can_show_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": ' + "[" * 100_000 + '\n{"step": 2, "a": NaN}\n')
    (row,) = read_rows(path)
    assert number(row, "a") is None
    assert number({"a": 10**400}, "a") is None
    assert number({"a": float("-inf")}, "a") is None

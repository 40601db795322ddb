"""Rows are read as they are written: half lines, damaged ones, files that begin anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reward_tuning.files.atomic_write import atomic_write
from reward_tuning.watch import json_lines
from reward_tuning.watch.json_lines import GrowingRows, flat
from tests.reward_tuning.watch.run_files import append


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def steps(rows: GrowingRows) -> list[int]:
    rows.update()
    return [row["step"] for row in rows.rows]


def test_rows_are_read_as_they_come_and_once(path: Path) -> None:
    rows = GrowingRows(path)
    assert steps(rows) == []
    append(path, {"step": 1})
    assert steps(rows) == [1]
    append(path, {"step": 2})
    append(path, {"step": 3})
    assert steps(rows) == steps(rows) == [1, 2, 3]
    assert rows.generation == 1


def test_half_a_line_waits_for_its_end_even_inside_a_letter(path: Path) -> None:
    rows = GrowingRows(path)
    line = (json.dumps({"step": 1, "prompt": "红球"}, ensure_ascii=False) + "\n").encode()
    for cut in range(1, len(line)):
        path.write_bytes(line[:cut])
        assert steps(rows) == []
        with path.open("ab") as file:
            file.write(line[cut:])
        assert steps(rows) == [1]
        assert rows.rows[0]["prompt"] == "红球"
        path.unlink()
        assert steps(rows) == []
    assert rows.damaged == 0


@pytest.mark.parametrize("line", ["{half", "[1]", '{"loss": 1}', '{"step": "2"}', '{"step": true}'])
def test_a_damaged_line_is_counted_and_the_others_are_read(path: Path, line: str) -> None:
    rows = GrowingRows(path)
    append(path, {"step": 1})
    append(path, f"{line}\n")
    append(path, {"step": 2})
    assert steps(rows) == [1, 2]
    assert rows.damaged == 1


def test_a_file_that_a_resume_has_replaced_is_read_again(path: Path) -> None:
    rows = GrowingRows(path)
    for step in (1, 2, 3):
        append(path, {"step": step})
    assert steps(rows) == [1, 2, 3]
    atomic_write(path, b'{"step": 1, "again": 1}\n{"step": 2, "again": 1}\n{"step": 3}\n')
    assert steps(rows) == [1, 2, 3]
    assert [row.get("again") for row in rows.rows] == [1, 1, None]
    assert rows.generation == 2
    path.write_text('{"step": 9}\n')  # the same file, shorter
    assert steps(rows) == [9]
    assert rows.generation == 3


def test_a_long_file_is_read_in_several_goes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MOST_BYTES", 20)
    for step in range(1, 9):
        append(path, {"step": step})
    rows = GrowingRows(path)
    seen = [len(steps(rows)) for _ in range(6)]
    assert seen == [1, 3, 5, 6, 8, 8]  # 12 bytes a line


def test_numbers_of_a_row_have_one_name_each() -> None:
    row = {
        "step": 3,
        "loss": -0.5,
        "reward": {"hps": 0.5, "broken": None},
        "active_steps": [{"step": 1, "grad_norm": 2.0}],
        "good": True,
        "text": "a",
        "measures": {"clip": {"mean": 0.1}},
    }
    assert flat(row) == {"step": 3, "loss": -0.5, "reward/hps": 0.5, "measures/clip/mean": 0.1}

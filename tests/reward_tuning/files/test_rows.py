"""One strict reader of rows: prompts, clips and lists of clips as people write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.files.rows import bad_rows_message
from reward_tuning.finetune.metadata import read_metadata
from reward_tuning.inputs.prompts import read_prompts
from reward_tuning.judges.clip_files import read_file_prompts
from reward_tuning.tuning.replay_sources import read_sources

CASES = Path(__file__).parents[1] / "cases"
BLUE = "a large blue square moves right on a dark background"
RED = "a small red star stays still on a bright background"


def pairs(path: Path) -> list[tuple[str, str]]:
    return [(one.text, one.reward_text) for one in read_prompts(path)]


def told(read: Any, path: Path) -> str:
    with pytest.raises(TuningError) as caught:
        read(path)
    message = str(caught.value)
    assert len(message) < 700 + len(str(path))
    return message


# --- the cases


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("11_nbsp_zero_width.txt", [(BLUE, BLUE), (RED, RED)]),
        ("20.json", [(BLUE, BLUE), (RED, RED)]),
        ("26_null_reward.jsonl", [(BLUE, BLUE)]),
        ("38_ndjson.ndjson", [(BLUE, BLUE)]),
        ("40_semicolon.csv", [(BLUE, "blue square")]),
        ("41_tab.csv", [(BLUE, "blue square")]),
        ("42_tsv.tsv", [(BLUE, "blue square")]),
        ("44_space_after_comma_quotes.csv", [("a large, blue square", "blue, square")]),
        ("44b_space_quote_nocomma.csv", [("a large blue square", "blue square")]),
        ("67_cat_bom_middle.txt", [("a large blue square", "a large blue square")] * 2),
    ],
)
def test_prompts_that_are_read_as_they_were_meant(
    name: str, expected: list[tuple[str, str]]
) -> None:
    assert pairs(CASES / "prompts" / name) == expected


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("49_short_rows.csv", "line 2: 1 cell for 2 columns; add a comma for each cell that is"),
        ("53_dup_header.csv", "line 1: the column `prompt` appears twice"),
        ("69_curly_quote_csv.csv", "line 2: 3 cells for 2 columns; put a text with a comma in qu"),
        ("69_curly_quote_csv.csv", 'these quotes are ", not typographic ones'),
        ("70_semicolon_one_column.csv", "line 3: 2 cells for 1 column; put a text with a comma"),
    ],
)
def test_prompts_that_are_refused_with_line_and_reason(name: str, wanted: str) -> None:
    assert wanted in told(read_prompts, CASES / "prompts" / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("12_jsonl.jsonl", "a large blue square moves right"),
        ("26_header_spaces.csv", "a"),
        ("29_blank_lines.csv", "a"),
        ("31_trailing_commas.csv", "a"),
        ("34_type_spaces.csv", "a"),
    ],
)
def test_lists_of_clips_that_are_read(name: str, text: str) -> None:
    (row,) = read_metadata(CASES / "metadata" / name)
    assert (row.file.name, row.text, row.kind, row.control) == ("01_plain.mp4", text, "video", None)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("22b_comma_unquoted_text_last.csv", "line 2: 5 cells for 3 columns"),
        ("32_dup_header.csv", "line 1: the column `text` appears twice"),
        ("47_misspelt.json", "row 1: unknown key `contol_file_path`; did you mean `control_file"),
        (
            "51_half_letter.json",
            "row 1: text 'a \\ud83d square' contains an invalid Unicode character (lone surrogate)",
        ),
        ("54_backslash_quote.csv", "line 2: not valid CSV"),
        ("54_backslash_quote.csv", 'a quote inside a text is written twice ("")'),
        ("58_nul_in_path.json", "row 1: file_path 'a\\x00b.mp4': a file name cannot contain a NUL"),
        ("59_long_name.json", "too long for a file name: 304 bytes between two slashes"),
    ],
)
def test_lists_of_clips_that_are_refused_with_line_and_reason(name: str, wanted: str) -> None:
    assert wanted in told(read_metadata, CASES / "metadata" / name)


# --- tables as programs write them


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "ndjson"])
def test_every_list_of_clips_has_every_form(tmp_path: Path, ending: str) -> None:
    def lines(row: dict[str, Any]) -> str:
        if ending in ("csv", "tsv"):
            separator = "," if ending == "csv" else "\t"
            cells = (str(value) if value is not None else "" for value in row.values())
            return f"{separator.join(row)}\n{separator.join(cells)}\n"
        return json.dumps([row] if ending == "json" else row)

    folder = tmp_path.resolve()
    row = {"file_path": "a.mp4", "text": "a", "control_file_path": None, "weight": 3}
    (clip,) = read_metadata(written(tmp_path, f"m.{ending}", lines(row)))
    assert (clip.file, clip.text, clip.control, clip.line) == (folder / "a.mp4", "a", None, 1)
    row = {"file": "a.mp4", "prompt": "long", "reward_prompt": "b"}
    found = read_file_prompts(written(tmp_path, f"f.{ending}", lines(row)))
    assert found == {folder / "a.mp4": "b", "a.mp4": "b"}
    row = {"prompt": "p", "video": "a.mp4"}
    (source,) = read_sources(written(folder, f"r.{ending}", lines(row)))
    assert (source.prompt, source.video) == ("p", folder / "a.mp4")


@pytest.mark.parametrize("read", [read_metadata, read_file_prompts, read_sources])
def test_lines_of_text_alone_name_no_clip(tmp_path: Path, read: Any) -> None:
    assert "suffix .txt; allowed: .json, .csv" in told(read, written(tmp_path, "m.txt", "a\n"))


@pytest.mark.parametrize("name", ["a\0b.txt", "\ud83d.txt", "x" * 300 + ".txt"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        TuningError,
        match=r"^prompt file '.*: (a file name cannot|it contains an invalid Unicode|too long)",
    ):
        read_prompts(tmp_path / name)


def test_utf_16_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "p.txt", "a red star\n".encode("utf-16"))
    assert "line 1: not UTF-8 text (it seems to be UTF-16); save the file" in told(
        read_prompts, path
    )


def test_long_messages_are_cut() -> None:
    few = bad_rows_message("head:", ["line 1: " + "a" * 5000] * 4)
    assert few.splitlines()[-1] == "  and 1 more"
    assert len(few) < 1000
    many = bad_rows_message("head:", [f"line {i}: bad" for i in range(50)])
    assert many.splitlines()[-2:] == ["  line 9: bad", "  and 40 more"]

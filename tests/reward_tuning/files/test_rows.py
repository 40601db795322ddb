"""One strict reader of rows: prompts, clips and lists of clips as people write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.files.clean_text import cleaned
from reward_tuning.files.columns import PROMPT, VIDEO
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
        ("51_half_letter.json", "row 1: text 'a \\ud83d square' contains a lone surrogate"),
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


TABLES = {
    "pandas with its index": ("p.csv", ',prompt,reward_prompt\n0,"a, b",c\n1,d,\n'),
    "Excel in English": ("p.csv", '\ufeffprompt,reward_prompt\r\n"a, b",c\r\nd,\r\n'),
    "Excel in German": ("p.csv", "\ufeffprompt;reward_prompt\r\na, b;c\r\nd;\r\n"),
    "Excel's first line": ("p.csv", "sep=;\r\nprompt;reward_prompt\r\na, b;c\r\nd;\r\n"),
    "LibreOffice, every text quoted": ("p.csv", '"prompt","reward_prompt"\n"a, b","c"\n"d",\n'),
    "an old Mac's ends of lines": ("p.csv", 'prompt,reward_prompt\r"a, b",c\rd,\r'),
    "tabs": ("p.tsv", "prompt\treward_prompt\na, b\tc\nd\t\n"),
    "tabs under another ending": ("p.csv", "prompt\treward_prompt\na, b\tc\nd\t\n"),
    "commas under another ending": ("p.tsv", 'prompt,reward_prompt\n"a, b",c\nd,\n'),
    "bars": ("p.csv", "prompt|reward_prompt\na, b|c\nd|\n"),
    "columns of one's own": ("p.csv", 'id,prompt,x,reward_prompt\n7,"a, b",y,c\n8,d,,null\n'),
    "files joined, each with its mark": (
        "p.csv",
        '\ufeffprompt,reward_prompt\n\ufeff"a, b",c\nd,\n',
    ),
    "JSON lines": ("p.jsonl", '{"prompt": "a, b", "reward_prompt": "c"}\n{"prompt": "d"}\n'),
    "JSON lines that end in .json": (
        "p.json",
        '{"prompt":"a, b","reward_prompt":"c"}\n{"prompt":"d"}',
    ),
    "a JSON list of both": ("p.json", '[{"prompt": "a, b", "reward_prompt": "c"},\n "d"]'),
}


@pytest.mark.parametrize(("name", "content"), list(TABLES.values()), ids=list(TABLES))
def test_what_programs_write_is_read(tmp_path: Path, name: str, content: str) -> None:
    assert pairs(written(tmp_path, name, content)) == [("a, b", "c"), ("d", "d")]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ('prompt,reward_prompt\n"a, b,c\nd,e\n', 'line 2: not valid CSV: a quote (") that opens'),
        ('prompt,reward_prompt\nd,e\n"a,c\n"b",f\n', "line 4: not valid CSV"),
        ("prompt;reward_prompt\na;b;c\n", "3 cells for 2 columns; put a text with a semicolon in"),
        ("prompt\treward_prompt\na\n", "1 cell for 2 columns; add a tab for each cell"),
        ("title,reward_prompt\na,b\n", "the header is title, reward_prompt; a column `prompt`"),
        (
            "prompt;reward prompt\na;b\n",
            "unknown key `reward prompt`; did you mean `reward_prompt`",
        ),
        ("Prompt,x\na,b\n", "unknown key `Prompt`; did you mean `prompt`"),
        (
            "prompt,\na,cut at its comma\n",
            "line 2: 'cut at its comma' is in a column without a name",
        ),
        (
            "prompt,reward_prompt\na,b\nprompt,reward_prompt\nc,d\n",
            "line 3: the header is repeated here",
        ),
        ("prompt,prompt,x\na,b,c\n", "line 1: the column `prompt` appears twice"),
        ("prompt\nnull\n", "line 2: the key `prompt` is null"),
        ("prompt,video_path\na,b.mp4\n", "unknown key `video_path`; did you mean `video`"),
        ("prompt,control_video\na,b.mp4\n", "unknown key `control_video`; did you mean `control`"),
        ("prompt,camera_motion\na,up\n", "unknown key `camera_motion`; did you mean `camera`"),
        ("prompt,prompt.1\na,b\n", "the keys `prompt` and `prompt.1` mean the same"),
        ("prompt^reward_prompt\na^b\n", "cells are separated by a comma, a semicolon, a tab or"),
        ("prompt,reward_prompt\na;b\n", "this row has a semicolon where the header has a comma"),
        ("prompt,reward_prompt\n'a','b'\n", "line 2: prompt is 'a', with these quotes as part"),
        ("prompt,x\n\u201ca b\u201d,y\n", "with these quotes as part of the text"),
        ("prompt,reward_prompt\na,NaN\n", "line 2: reward_prompt is NaN, a placeholder"),
        ('prompt\n"a\nb\n' + "c" * 140_000, "line 2: not valid CSV: a text of more than 131072"),
        ('prompt,x\n"a,b\n"c",d\n', "line 3: not valid CSV (in the row that begins in line 2)"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, content: str, wanted: str) -> None:
    assert wanted in told(read_prompts, written(tmp_path, "p.csv", content))


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        ("prompt,x\n'tis a cat's 'hat',1\n", "'tis a cat's 'hat'"),  # two words in quotes
        ('prompt,x\n"""Hello"" says a cat",1\n', '"Hello" says a cat'),
        ("prompt,prompt_id\na,7\n", "a"),
        ("prompt,x\nnone of the cats,nan\n", "none of the cats"),
    ],
)
def test_texts_and_columns_that_only_look_odd(tmp_path: Path, content: str, prompt: str) -> None:
    assert pairs(written(tmp_path, "p.csv", content)) == [(prompt, prompt)]


@pytest.mark.parametrize("key", ["control", "control_video", "control_file", "contol_file_path"])
def test_no_list_trains_without_its_control(tmp_path: Path, key: str) -> None:
    content = json.dumps([{"file_path": "a.mp4", "text": "a", key: "b.mp4"}])
    wanted = f"row 1: unknown key `{key}`; did you mean `control_file_path`?"
    assert wanted in told(read_metadata, written(tmp_path, "m.json", content))


def test_one_object_is_a_list_of_one_line(tmp_path: Path) -> None:
    assert pairs(written(tmp_path, "p.json", '{"prompt": "a"}')) == [("a", "a")]
    wanted = "row 1: unknown key `prompts`; did you mean `prompt`?"
    assert wanted in told(read_prompts, written(tmp_path, "p.json", '{"prompts": ["a", "b"]}'))
    wanted = 'is not a list of rows; expected rows such as {"prompt": "..."}'
    assert wanted in told(read_prompts, written(tmp_path, "p.json", "3"))


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


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ('{"prompt": "a", "seed": %s}' % ("9" * 5000), "a number has too many digits"),
        ('{"prompt": %s}' % ("[" * 100_000), "too deeply nested"),
        ('{"prompt": "a\\u0000b"}', "contains a NUL character"),
        ('{"prompt": "\\ud83d"}', "contains a lone surrogate"),
        ('{"prompt": "\\u200b\\ufeff"}', "expected a text"),
        ('{"prompt": "a", "image": "%s"}' % ("b" * 300), "too long for a file name"),
        ('{"prompt": "a", "image": "\\ud83d.png"}', "a lone surrogate"),
        ('{"prompt": "a", "camera": "pan left", "camera_speed": 1e400}', "a number above 0"),
        ('{"prompt": "a", "extend": "b.mp4", "keep_frames": 1%s}' % ("0" * 400), "whole number"),
    ],
)
def test_values_that_once_ended_in_a_traceback(tmp_path: Path, line: str, wanted: str) -> None:
    (tmp_path / "b.mp4").touch()
    for name, content in (("p.jsonl", line), ("p.json", f"[{line}]")):
        assert wanted in told(read_prompts, written(tmp_path, name, content))


@pytest.mark.parametrize("name", ["a\0b.txt", "\ud83d.txt", "x" * 300 + ".txt"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        TuningError, match=r"^prompt file '.*: (a file name cannot|it contains a lone|too long)"
    ):
        read_prompts(tmp_path / name)


def test_utf_16_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "p.txt", "a red star\n".encode("utf-16"))
    assert "line 1: not UTF-8 text (it seems to be UTF-16); save the file" in told(
        read_prompts, path
    )


def test_invisible_marks_are_no_part_of_a_text() -> None:
    assert cleaned("\ufeff\u200b a\u200b red\u2060 star\u200e\u00a0") == "a red star"
    assert cleaned("a\u00a0red so\u00adft\u2028star") == "a red soft star"
    assert cleaned("می\u200cخواهم") == "می\u200cخواهم"  # a joiner between letters has a meaning


def test_long_messages_are_cut() -> None:
    few = bad_rows_message("head:", ["line 1: " + "a" * 5000] * 4)
    assert few.splitlines()[-1] == "  and 1 more"
    assert len(few) < 1000
    many = bad_rows_message("head:", [f"line {i}: bad" for i in range(50)])
    assert many.splitlines()[-2:] == ["  line 9: bad", "  and 40 more"]


# --- one set of names in every file


def written_rows(folder: Path, row: dict[str, Any], suffix: str) -> Path:
    if suffix == ".csv":
        content = (
            f"{','.join(row)}\n{','.join('' if v is None else str(v) for v in row.values())}\n"
        )
    else:
        content = json.dumps(row)
    return written(folder, f"rows{suffix}", content)


def read_scored(path: Path) -> tuple[str, str]:
    """The clip's name and its prompt, as `score` reads them."""
    (prompt,) = {*read_file_prompts(path).values()}
    (name,) = (key for key in read_file_prompts(path) if isinstance(key, str))
    return prompt, name


def read_replayed(path: Path) -> tuple[str, str]:
    (source,) = read_sources(path)
    assert source.video is not None
    return source.prompt, source.video.name


def read_trained(path: Path) -> tuple[str, str]:
    (row,) = read_metadata(path)
    return row.text, row.file.name


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("prompt", PROMPT.names)
def test_a_prompt_has_each_name_in_prompt_files(tmp_path: Path, prompt: str, suffix: str) -> None:
    row = {prompt: "a fox", "reward_prompt": "fox"}
    assert pairs(written_rows(tmp_path, row, suffix)) == [("a fox", "fox")]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("video", VIDEO.names)
@pytest.mark.parametrize("prompt", PROMPT.names)
@pytest.mark.parametrize("read", [read_scored, read_replayed, read_trained])
def test_prompt_and_clip_have_each_name_in_lists_of_clips(
    tmp_path: Path, read: Any, prompt: str, video: str, suffix: str
) -> None:
    row = {video: "a.mp4", prompt: "a fox"}
    assert read(written_rows(tmp_path, row, suffix)) == ("a fox", "a.mp4")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("read", [read_prompts, read_scored, read_replayed, read_trained])
def test_two_names_of_one_column_in_a_row_are_a_mistake(
    tmp_path: Path, read: Any, suffix: str
) -> None:
    row = {"file": "a.mp4", "caption": "a", "text": "b"}
    wanted = "`text` and `caption` mean the same; remove one"
    assert wanted in told(read, written_rows(tmp_path, row, suffix))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("read", [read_scored, read_replayed, read_trained])
def test_two_names_of_the_clip_are_a_mistake(tmp_path: Path, read: Any, suffix: str) -> None:
    row = {"file_path": "a.mp4", "file": "b.mp4", "prompt": "a"}
    wanted = "`file` and `file_path` mean the same; remove one"
    assert wanted in told(read, written_rows(tmp_path, row, suffix))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_name_that_is_not_given_does_not_count(tmp_path: Path, suffix: str) -> None:
    row = {"file": None, "file_path": "a.mp4", "text": None, "caption": "a fox"}
    for read in (read_scored, read_replayed, read_trained):
        assert read(written_rows(tmp_path, row, suffix)) == ("a fox", "a.mp4")
    assert pairs(written_rows(tmp_path, row, suffix)) == [("a fox", "a fox")]


def test_a_list_of_generated_clips_is_read_by_every_reader(tmp_path: Path) -> None:
    """In `clips.jsonl`, `video` is the clip that generation started from."""
    (tmp_path / "start.mp4").touch()
    row = {"file": "0000.mp4", "prompt": "a fox", "seed": 3, "video": "start.mp4", "strength": 0.7}
    path = written_rows(tmp_path, row, ".jsonl")
    assert read_scored(path) == ("a fox", "0000.mp4")
    (prompt,) = read_prompts(path)
    assert (prompt.text, prompt.files.video) == ("a fox", str((tmp_path / "start.mp4").resolve()))
    assert "`video` and `file` mean the same" in told(read_replayed, path)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"captoin": "a"}, "unknown key `captoin`; did you mean `caption`?"),
        ({"prompt": "a", "captions": "b"}, None),
        ({"text": "a", "prompts": "b"}, None),
        ({"text": "a", "Prompt": "b"}, None),
        ({"text": "a", "Text": "b"}, "the keys `text` and `Text` mean the same"),
        ({"text": "a", "text.1": "b"}, "the keys `text` and `text.1` mean the same"),
        ({"text": None}, "the key `text` is null"),
    ],
)
def test_only_a_column_that_is_missing_can_be_misspelt(
    tmp_path: Path, row: dict[str, Any], fault: str | None
) -> None:
    path = written_rows(tmp_path, row, ".jsonl")
    if fault is None:
        assert pairs(path) == [("a", "a")]
    else:
        assert fault in told(read_prompts, path)

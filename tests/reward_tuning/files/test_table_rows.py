"""Tables as programs write them, and tables that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_tuning.inputs.prompts import read_prompts
from tests.reward_tuning.files.test_rows import pairs, told, written

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

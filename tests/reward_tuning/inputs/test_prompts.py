"""Prompt files of three kinds, their bad lines, and the stream."""

import json
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.inputs.condition_files import ConditionFiles
from reward_tuning.inputs.prompts import Prompt, PromptStream, read_prompts


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def told(path: Path) -> str:
    with pytest.raises(TuningError) as caught:
        read_prompts(path)
    assert str(caught.value).startswith(f"prompt file {path}")
    return str(caught.value)


def test_txt(tmp_path: Path) -> None:
    path = written(
        tmp_path, "p.txt", "a cat \n\n 一只狗\na cat\r\n# a comment\n  # another\nno. #1"
    )
    assert read_prompts(path) == [
        Prompt("a cat", "a cat"),
        Prompt("一只狗", "一只狗"),
        Prompt("a cat", "a cat"),
        Prompt("no. #1", "no. #1"),
    ]


def test_jsonl(tmp_path: Path) -> None:
    lines = [
        {"prompt": "a long text", "reward_prompt": "short", "split": "train"},
        {"prompt": " 只有 "},
    ]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n"
    assert read_prompts(written(tmp_path, "p.jsonl", text)) == [
        Prompt("a long text", "short"),
        Prompt("只有", "只有"),
    ]


def test_csv(tmp_path: Path) -> None:
    text = (
        "﻿id,prompt,reward_prompt\r\n"
        '1,"a cat, asleep",cat\r\n'
        '2,"two\nlines",\r\n'
        "\r\n"
        '3,"say ""hi""",hi\r\n'
    )
    assert read_prompts(written(tmp_path, "p.CSV", text)) == [
        Prompt("a cat, asleep", "cat"),
        Prompt("two\nlines", "two\nlines"),
        Prompt('say "hi"', "hi"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ('"a cat"', "expected an object"),
        ("{}", "the key `prompt` (or `text`, `caption`) is missing"),
        ('{"prompt": ""}', 'prompt is ""; expected a text'),
        ('{"prompt": 3}', "prompt is 3; expected a text"),
        ('{"prompt": null}', "the key `prompt` is null"),
        ('{"prompt": "a", "prompt": "b"}', "the key `prompt` appears twice"),
        ('{"prompt": "a", "image_path": "b.png"}', "`image_path`; did you mean `image`?"),
        ('{"prompt": "a", "reward_promt": "b"}', "`reward_promt`; did you mean `reward_prompt`?"),
        ('{"promt": "a"}', "unknown key `promt`; did you mean `prompt`?"),
    ],
)
def test_bad_jsonl_lines_are_told_by_number(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path, "p.jsonl", f'{{"prompt": "good"}}\n\n{line}\n{line}\n')
    lines = told(path).splitlines()
    assert [one.split(":")[0].strip() for one in lines[1:]] == ["line 3", "line 4"]
    assert all(message in one for one in lines[1:])


def test_many_bad_lines_are_cut(tmp_path: Path) -> None:
    lines = told(written(tmp_path, "p.jsonl", "x\n" * 25)).splitlines()
    assert len(lines) == 12
    assert lines[-1] == "  and 15 more"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "title,b\na,b\n",
            "line 1: the header is title, b; a column `prompt` (or `text`, `caption`) is",
        ),
        ("prompt,reward prompt\na,b\n", "did you mean `reward_prompt`?"),
        ('prompt,x\n"two\nlines",1\na,b,c\n', "line 4: 3 cells for 2 columns"),
        ('prompt,x\n"two\nlines",1,9\n', "line 2: 3 cells for 2 columns"),
        ("prompt,x\n,1\n", 'line 2: prompt is ""; expected a text'),
        ('prompt\n"open\n', "not valid CSV"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, message: str) -> None:
    assert message in told(written(tmp_path, "p.csv", text))


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl", "p.csv"])
@pytest.mark.parametrize("text", ["", "\n \n"])
def test_empty(tmp_path: Path, name: str, text: str) -> None:
    assert "has no prompt" in told(written(tmp_path, name, text))


def test_header_alone_is_empty(tmp_path: Path) -> None:
    assert "has no prompt" in told(written(tmp_path, "p.csv", "prompt\n"))


def test_not_utf8(tmp_path: Path) -> None:
    path = written(tmp_path, "p.txt", "a cat\ncaf\xe9".encode("latin-1"))
    assert "line 2: not UTF-8 text" in told(path)


def test_missing_and_other_kinds(tmp_path: Path) -> None:
    assert "cannot be read" in told(tmp_path / "gone.txt")
    assert "allowed: .txt, .jsonl, .csv" in told(written(tmp_path, "p.yaml", "[]"))


PROMPTS = [Prompt(f"p{i}", f"r{i}") for i in range(7)]


def test_stream_gives_each_prompt_once_an_epoch() -> None:
    stream = PromptStream(PROMPTS, seed=1)
    epochs = [tuple(stream.batch_at(7 * epoch, 7)) for epoch in range(20)]
    assert all(sorted(p.text for p in epoch) == sorted(p.text for p in PROMPTS) for epoch in epochs)
    assert len(set(epochs)) > 15  # of 5040 orders, 20 draws hardly meet


def test_stream_resumes_from_a_position() -> None:
    whole = PromptStream(PROMPTS, seed=1).batch_at(0, 40)
    for start in (0, 1, 6, 7, 23):
        assert PromptStream(PROMPTS, seed=1).batch_at(start, 17) == whole[start : start + 17]
    stream = PromptStream(PROMPTS, seed=1)
    assert [stream.prompt_at(i) for i in (30, 2, 30)] == [whole[30], whole[2], whole[30]]


def test_stream_depends_on_the_seed_alone() -> None:
    one, other = (PromptStream(PROMPTS, seed=seed).batch_at(0, 28) for seed in (1, 2))
    assert one != other
    # the order is part of what a run repeats: pinned, so that no release of ours moves it
    assert [p.text for p in one[:7]] == ["p6", "p4", "p0", "p3", "p5", "p1", "p2"]


def test_stream_of_duplicates() -> None:
    stream = PromptStream([PROMPTS[0], PROMPTS[0]], seed=0)
    assert stream.batch_at(0, 3) == [PROMPTS[0]] * 3
    assert len(stream) == 2


# --- what a clip follows


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Files that exist; reading a prompt file does not open them."""
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.mp4", "c.mp4", "p.json", "p.txt"):
        (tmp_path / "in" / name).touch()
    return tmp_path


def test_a_prompt_names_what_its_clip_follows(media: Path) -> None:
    rows = [
        {"prompt": "p", "reward_prompt": "r", "image": "in/a.png", "end_image": "in/a.png"},
        {"prompt": "p", "control": "in/b.mp4", "control_type": "canny"},
        {"prompt": "p", "control": ["in/b.mp4", "in/c.mp4"], "trajectory": "in/p.json"},
        {"prompt": "p", "camera": "pan left", "camera_speed": 2},
        {"prompt": "p", "camera": "in/p.txt", "reference": None},
        {"prompt": "p", "extend": "in/b.mp4", "keep_frames": 5},
    ]
    (media / "p.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    image, b, c = (str(media / "in" / name) for name in ("a.png", "b.mp4", "c.mp4"))
    found = read_prompts(media / "p.jsonl")
    assert found[0] == Prompt("p", "r", ConditionFiles(image=image, end_image=image))
    assert [prompt.files for prompt in found[1:]] == [
        ConditionFiles(control=(b,), control_type="canny"),
        ConditionFiles(control=(b, c), trajectory=str(media / "in" / "p.json")),
        ConditionFiles(camera="pan left", camera_speed=2),
        ConditionFiles(camera=str(media / "in" / "p.txt")),
        ConditionFiles(extend=b, keep_frames=5),
    ]


def test_a_csv_has_columns_for_it(media: Path) -> None:
    (media / "p.csv").write_text(
        "prompt,image,extend,keep_frames,camera,camera_speed\n"
        "p,in/a.png,,,,\n"
        "p,,in/b.mp4,5,,\n"
        "p,,,,zoom in,0.5\n"
        "p,,,,,\n",
        encoding="utf-8",
    )
    assert [prompt.files for prompt in read_prompts(media / "p.csv")] == [
        ConditionFiles(image=str(media / "in" / "a.png")),
        ConditionFiles(extend=str(media / "in" / "b.mp4"), keep_frames=5),
        ConditionFiles(camera="zoom in", camera_speed=0.5),
        ConditionFiles(),
    ]
    (media / "p.csv").write_text("prompt,extend,keep_frames\np,in/b.mp4,five\n")
    with pytest.raises(
        TuningError, match='line 2: keep_frames is "five"; expected a whole number from 1'
    ):
        read_prompts(media / "p.csv")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "in/gone.png"}, r"line 1: image .*in/gone\.png: no such file"),
        ({"image": 3}, "line 1: image is 3; expected a text"),
        ({"image": " "}, 'image is " "; expected a text'),
        ({"control": []}, r"control is \[\]; expected a path or a list of paths"),
        ({"control": ["in/b.mp4", 2]}, r'control is \["in/b.mp4", 2\]; expected a path or a list'),
        (
            {"extend": "in/b.mp4", "keep_frames": 0},
            "keep_frames is 0; expected a whole number from 1",
        ),
        (
            {"extend": "in/b.mp4", "keep_frames": True},
            "keep_frames is true; expected a whole number",
        ),
        (
            {"camera": "pan left", "camera_speed": -1},
            "camera_speed is -1; expected a number above 0",
        ),
        ({"camera": "in/gone.txt"}, r"camera .*in/gone\.txt: no such file"),
        ({"imge": "in/a.png"}, "unknown key `imge`; did you mean `image`"),
        ({"end-image": "in/a.png"}, "unknown key `end-image`; did you mean `end_image`"),
    ],
)
def test_what_is_wrong_with_it_is_told(media: Path, row: dict[str, Any], message: str) -> None:
    (media / "p.jsonl").write_text(json.dumps({"prompt": "p", **row}), encoding="utf-8")
    with pytest.raises(TuningError, match=message):
        read_prompts(media / "p.jsonl")


def test_the_prompts_that_the_first_positions_hold() -> None:
    stream = PromptStream(PROMPTS, 3)
    assert stream.drawn(4) == [stream.prompt_at(i) for i in range(4)]
    assert sorted(prompt.text for prompt in stream.drawn(40)) == [p.text for p in PROMPTS]


# --- categories, and the lists of VBench


def test_a_category_is_kept(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "category": " animals "}, {"prompt": "b", "category": None}]
    path = written(tmp_path, "p.jsonl", "\n".join(map(json.dumps, rows)))
    assert read_prompts(path) == [Prompt("a", "a", category="animals"), Prompt("b", "b")]
    table = written(tmp_path, "p.csv", "prompt,category\na,food\nb,\n")
    assert [prompt.category for prompt in read_prompts(table)] == ["food", None]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"category": 3}, "line 1: category is 3; expected a text"),
        ({"category": " "}, 'category is " "; expected a text'),
        ({"catgory": "a"}, "unknown key `catgory`; did you mean `category`?"),
    ],
)
def test_a_wrong_category_is_told(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    assert message in told(written(tmp_path, "p.jsonl", json.dumps({"prompt": "p", **row})))


def test_a_list_of_vbench_is_read(tmp_path: Path) -> None:
    rows = [
        {"prompt_en": "A parked tram, seen from above", "dimension": ["temporal_flickering"]},
        {
            "prompt_en": "a heron next to a boat",
            "dimension": ["spatial_relationship", "color"],
            "auxiliary_info": {"spatial_relationship": {"object_a": "heron"}},
        },
        {"prompt_en": "Pond, tilt up.", "dimension": ["Camera_Motion"], "auxiliary_info": "x"},
    ]
    path = written(tmp_path, "VBench_full_info.json", json.dumps(rows))
    texts = [row["prompt_en"] for row in rows]
    categories = ["temporal_flickering", "spatial_relationship", "Camera_Motion"]
    assert read_prompts(path) == [
        Prompt(text, text, category=category)
        for text, category in zip(texts, categories, strict=True)
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt_en": "b"}, "row 2: the key `dimension` is missing"),
        ({"prompt_en": "b", "dimension": []}, "row 2: dimension is []; expected a list of names"),
        ({"prompt_en": "b", "dimension": [3]}, "row 2: dimension is [3]; expected a list"),
        ({"prompt_en": "", "dimension": ["x"]}, 'row 2: prompt_en is ""; expected a text'),
        (
            {"prompt_en": "b", "dimension": ["x"], "image_name": "b.jpg"},
            'row 2: image_name is "b.jpg": this clip starts from a picture; add the key `image`',
        ),
    ],
)
def test_bad_rows_of_vbench(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    rows = [{"prompt_en": "a", "dimension": ["x"]}, row]
    assert message in told(written(tmp_path, "v.json", json.dumps(rows)))

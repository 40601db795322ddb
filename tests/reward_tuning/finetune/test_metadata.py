import json
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.finetune.metadata import ClipRow, read_metadata

ROWS = [
    {"file_path": "a.mp4", "text": "a cat", "type": "video", "width": 640, "height": 480},
    {"file_path": "b.png", "text": " 一只猫 ", "type": "image"},
    {"file_path": "c.mp4", "text": "", "control_file_path": "poses/c.txt"},
]


def test_json_and_csv_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps(ROWS, ensure_ascii=False), encoding="utf-8")
    (tmp_path / "m.csv").write_text(
        "file_path,text,type,width,height,control_file_path,note\n"
        "a.mp4,a cat,video,640,480,,x\nb.png, 一只猫 ,image,,,,\nc.mp4,,,,,poses/c.txt,\n",
        encoding="utf-8",
    )
    root = tmp_path.resolve()
    expected = [
        ClipRow(root / "a.mp4", "a cat", "video", None, 1),
        ClipRow(root / "b.png", "一只猫", "image", None, 2),
        ClipRow(root / "c.mp4", "", "video", root / "poses" / "c.txt", 3),
    ]
    assert read_metadata(tmp_path / "m.json") == expected
    assert read_metadata(tmp_path / "m.csv") == expected


def test_paths_start_from_the_folder_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps(ROWS[:1]))
    found = read_metadata(tmp_path / "m.json", tmp_path / "clips")
    assert found[0].file == (tmp_path / "clips").resolve() / "a.mp4"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("m.json", "[", "not valid JSON"),
        (
            "m.json",
            '{"file_path": "a"}',
            "row 1: the key `prompt` (or `text`, `caption`) is missing",
        ),
        ("m.json", "[]", "names no clip"),
        (
            "m.json",
            '[{"text": "a"}, 3]',
            "row 1: the key `video` (or `file`, `file_path`) is missing\n  row 2: got 3",
        ),
        ("m.json", '[{"file_path": "a", "text": 3}]', "text is 3; expected a text"),
        ("m.json", '[{"file_path": "a", "text": "", "type": "gif"}]', "allowed: video, image"),
        ("m.csv", "path,text\na,b\n", "a column `video` (or `file`, `file_path`) is required"),
        ("m.txt", "a", "allowed: .json, .csv"),
    ],
)
def test_bad_lists(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TuningError) as caught:
        read_metadata(tmp_path / name)
    assert told in str(caught.value)
    assert name in str(caught.value)

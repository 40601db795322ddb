"""One set of column names in prompt files and in every list of clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.files.columns import PROMPT, VIDEO
from reward_tuning.finetune.metadata import read_metadata
from reward_tuning.inputs.prompts import read_prompts
from reward_tuning.judges.clip_files import read_file_prompts
from reward_tuning.tuning.replay_sources import read_sources
from tests.reward_tuning.files.test_rows import pairs, told, written


@pytest.mark.parametrize("key", ["control", "control_video", "control_file", "contol_file_path"])
def test_no_list_trains_without_its_control(tmp_path: Path, key: str) -> None:
    content = json.dumps([{"file_path": "a.mp4", "text": "a", key: "b.mp4"}])
    wanted = f"row 1: unknown key `{key}`; did you mean `control_file_path`?"
    assert wanted in told(read_metadata, written(tmp_path, "m.json", content))


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
@pytest.mark.parametrize(
    ("read", "names"),
    [
        (read_prompts, ("text", "caption")),
        (read_scored, ("text", "caption")),
        (read_replayed, ("text", "caption")),
        (read_trained, ("prompt", "caption")),
    ],
)
def test_two_further_names_of_one_column_in_a_row_are_a_mistake(
    tmp_path: Path, read: Any, names: tuple[str, str], suffix: str
) -> None:
    row = {"file": "a.mp4", names[1]: "a", names[0]: "b"}
    wanted = f"`{names[0]}` and `{names[1]}` mean the same; remove one"
    assert wanted in told(read, written_rows(tmp_path, row, suffix))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("read", "names"),
    [
        (read_scored, ("video", "file_path")),
        (read_replayed, ("file", "file_path")),
        (read_trained, ("video", "file")),
    ],
)
def test_two_further_names_of_the_clip_are_a_mistake(
    tmp_path: Path, read: Any, names: tuple[str, str], suffix: str
) -> None:
    row = {names[1]: "a.mp4", names[0]: "b.mp4", "prompt": "a"}
    wanted = f"`{names[0]}` and `{names[1]}` mean the same; remove one"
    assert wanted in told(read, written_rows(tmp_path, row, suffix))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("read", "prompt", "video"),
    [
        (read_scored, "prompt", "file"),
        (read_replayed, "prompt", "video"),
        (read_trained, "text", "file_path"),
    ],
)
def test_the_own_name_of_a_list_counts_and_other_names_are_ignored(
    tmp_path: Path, read: Any, prompt: str, video: str, suffix: str
) -> None:
    """A list may have columns for other programs, whatever is in them."""
    others = dict.fromkeys((*PROMPT.names, *VIDEO.names), "nan") | {"caption.1": "c"}
    row = others | {prompt: "a fox", video: "a.mp4"}
    assert read(written_rows(tmp_path, row, suffix)) == ("a fox", "a.mp4")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_prompt_file_ignores_other_names_next_to_prompt(tmp_path: Path, suffix: str) -> None:
    row = {"text": "'b'", "text.1": "b", "caption": "c", "prompt": "a fox"}
    assert pairs(written_rows(tmp_path, row, suffix)) == [("a fox", "a fox")]


def test_a_repeated_column_that_is_ignored_is_no_mistake(tmp_path: Path) -> None:
    path = written(tmp_path, "p.csv", "caption,prompt,caption\nb,a fox,c\n")
    assert pairs(path) == [("a fox", "a fox")]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_an_empty_text_of_a_clip_to_train_on_is_a_text(tmp_path: Path, suffix: str) -> None:
    row = {"file_path": "a.mp4", "text": "", "caption": "nan"}
    assert read_trained(written_rows(tmp_path, row, suffix)) == ("", "a.mp4")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_name_that_is_not_given_does_not_count(tmp_path: Path, suffix: str) -> None:
    row = {"file": None, "file_path": "a.mp4", "text": None, "caption": "a fox"}
    for read in (read_scored, read_replayed):
        assert read(written_rows(tmp_path, row, suffix)) == ("a fox", "a.mp4")
    assert pairs(written_rows(tmp_path, row, suffix)) == [("a fox", "a fox")]
    row = {"file": None, "file_path": "a.mp4", "prompt": None, "caption": "a fox"}
    assert read_trained(written_rows(tmp_path, row, suffix)) == ("a fox", "a.mp4")


def test_a_list_of_generated_clips_is_read_by_every_reader(tmp_path: Path) -> None:
    """In `clips.jsonl`, `video` is the clip that generation started from."""
    (tmp_path / "start.mp4").touch()
    row = {"file": "0000.mp4", "prompt": "a fox", "seed": 3, "video": "start.mp4", "strength": 0.7}
    path = written_rows(tmp_path, row, ".jsonl")
    assert read_scored(path) == ("a fox", "0000.mp4")
    (prompt,) = read_prompts(path)
    assert (prompt.text, prompt.files.video) == ("a fox", str((tmp_path / "start.mp4").resolve()))
    assert read_replayed(path) == ("a fox", "start.mp4")


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

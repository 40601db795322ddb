"""Files and folders to clips, and where the prompt of a clip comes from."""

import json
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.judges.clip_files import find_clips, with_prompts
from tests.reward_tuning import clip_folder
from tests.reward_tuning.command_line import Command, command

_command = pytest.fixture(command, name="command")
folder, clips = clip_folder.folder, clip_folder.clips


def test_clips_are_found_by_name_and_once(folder: Path) -> None:
    (folder / "notes.md").write_text("no clip")
    (folder / ".hidden.mp4").write_bytes(b"")
    found = find_clips([folder / "b.gif", folder])
    assert [str(path.relative_to(folder)) for path in found] == [
        "b.gif",
        "a.mp4",
        "d.webm",
        "deep/wide.mp4",
        "e.jpg",
    ]
    (folder / "empty").mkdir()
    for source, said in (
        ("gone.mp4", "no such file or folder"),
        ("notes.md", r"ending .md; allowed: .mp4, .webm"),
        ("empty", "contains no clip"),
    ):
        with pytest.raises(TuningError, match=said):
            find_clips([folder / source])


@pytest.mark.parametrize("prompt", ["", " "])
def test_an_empty_prompt_is_none(command: Command, folder: Path, prompt: str) -> None:
    reward = "clip:tiny/clip.safetensors"
    code, _, said = command("score", str(folder / "b.gif"), "--prompt", prompt, "--reward", reward)
    assert code == 2
    assert "no prompt for" in said


def test_where_prompts_come_from(folder: Path) -> None:
    paths = find_clips([folder])
    (folder / "a.txt").write_text("\ufeffa fox\n", encoding="utf-8")
    lines = [{"file": "b.gif", "prompt": "a cat"}, {"file": "d.webm", "prompt": "a dog"}]
    (folder / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    given = {clip.path.name: clip.prompt for clip in with_prompts(paths)}
    expected = {"a.mp4": "a fox", "b.gif": "a cat", "d.webm": "a dog"}
    assert given == expected | {"wide.mp4": None, "e.jpg": None}
    (folder / "p").mkdir()
    row = {"file": "../deep/wide.mp4", "prompt": "a long story", "reward_prompt": "a hen"}
    (folder / "p" / "mine.jsonl").write_text(json.dumps(row) + '\n{"file": "a.mp4", "prompt": "x"}')
    given = {
        clip.path.name: clip.prompt
        for clip in with_prompts(paths, prompts_file=folder / "p" / "mine.jsonl")
    }
    assert given == expected | {"wide.mp4": "a hen", "a.mp4": "x", "e.jpg": None}
    assert {clip.prompt for clip in with_prompts(paths, prompt="one")} == {"one"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not valid JSON"),
        ("[]", r"line 2: got \[\]; expected an object such as"),
        ('{"file": "a"}', r"line 2: the key `prompt` \(or `text`, `caption`\) is missing"),
        ('{"file": "a", "prompt": " "}', 'line 2: prompt is " "; expected a text'),
        ('{"file": "a", "promt": "x"}', "did you mean `prompt`"),
    ],
)
def test_bad_prompt_files(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"file": "b.mp4", "prompt": "b"}\n' + line)
    with pytest.raises(TuningError, match=said):
        with_prompts([tmp_path / "a.mp4"], prompts_file=path)

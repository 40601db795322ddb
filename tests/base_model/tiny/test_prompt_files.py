import json
from pathlib import Path
from typing import Any

import pytest

import recipes
from base_model.tiny.captions import parse_caption
from base_model.tiny.prompt_files import COUNTS, write_prompt_files

COMMITTED = Path(recipes.__file__).parent / "tiny"


def rows(split: str) -> list[dict[str, Any]]:
    lines = (COMMITTED / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("split", COUNTS)
def test_the_committed_files_are_what_is_written(split: str, tmp_path: Path) -> None:
    write_prompt_files(tmp_path / "new")
    written = (tmp_path / "new" / f"{split}.jsonl").read_bytes()
    assert written == (COMMITTED / f"{split}.jsonl").read_bytes()


@pytest.mark.parametrize(("split", "count"), [("train", 400), ("held_out", 128)])
def test_prompts_are_captions_of_their_split(split: str, count: int) -> None:
    parsed = [parse_caption(row["prompt"]) for row in rows(split)]
    assert {scene.split for scene, _ in parsed} == {split}
    assert len({scene for scene, _ in parsed}) == count  # one line a scene
    assert [language for _, language in parsed] == ["en", "zh"] * (count // 2)


@pytest.mark.parametrize("split", COUNTS)
def test_reward_prompts_say_the_same_in_english(split: str) -> None:
    for row in rows(split):
        assert set(row) == {"prompt", "reward_prompt"}
        assert parse_caption(row["reward_prompt"]) == (parse_caption(row["prompt"])[0], "en")


def test_written_files_replace_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("old\n" * 1000)
    write_prompt_files(tmp_path)
    assert len((tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()) == 400
    assert {path.name for path in tmp_path.iterdir()} == {"train.jsonl", "held_out.jsonl"}


def test_chinese_stays_readable() -> None:
    assert "\\u" not in (COMMITTED / "train.jsonl").read_text(encoding="utf-8")

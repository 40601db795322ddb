import json
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.report.evaluations import read_evaluation, unfinished
from tests.reward_tuning.cli.finished_run import FOUND
from tests.reward_tuning.report.evaluation_folder import write_clip_file, write_evaluation

OLD = {key: value for key, value in FOUND.items() if key not in ("sides", "questions", "format")}


def write_samples(folder: Path, steps: tuple[int, ...]) -> None:
    rows = [{"file": "00.mp4", "prompt": "a star", "seed": 7}, {"file": "01.mp4", "prompt": "b"}]
    for step in steps:
        write_clip_file(folder / "samples" / f"step-{step:06d}" / "00.mp4", step)
    (folder / "samples" / "prompts.json").write_text(json.dumps(rows))


def test_sides_are_read_and_judges_come_first(tmp_path: Path) -> None:
    found = read_evaluation(write_evaluation(tmp_path, prompts=2))
    assert found is not None
    assert found.metrics == ["clip_held_out", "hps", "motion"]
    assert found.missing == ()
    assert found.sides[2].clips == {0: "clips/2/00.mp4", 1: "clips/2/01.mp4"}


def test_an_older_run_shows_its_sample_clips_and_says_what_is_missing(tmp_path: Path) -> None:
    write_samples(tmp_path, (0, 20, 40))
    (tmp_path / "evaluation.json").write_text(json.dumps(OLD))
    found = read_evaluation(tmp_path)
    assert found is not None
    base, tuned = found.sides
    assert base.clips == {0: "samples/step-000000/00.mp4"}
    assert tuned.clips == {0: "samples/step-000040/00.mp4"}
    assert tuned.difference["hps"].low == 0.0027
    assert found.primary == "clip_held_out"
    assert [q.prompt for q in found.questions] == ["a star", "b"]
    assert "older version" in found.missing[0]


def test_an_unfinished_run_shows_first_and_newest_clips(tmp_path: Path) -> None:
    write_samples(tmp_path, (0, 20))
    assert read_evaluation(tmp_path) is None
    found = unfinished(tmp_path)
    assert [list(side.clips.values()) for side in found.sides] == [
        ["samples/step-000000/00.mp4"],
        ["samples/step-000020/00.mp4"],
    ]
    assert "not finished" in found.missing[0]
    (tmp_path / "finetune.json").write_text("{}")
    assert "a fine-tuning" in unfinished(tmp_path).missing[0]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"sides": [{"name": "base", "against": 3}]}, "sides.0.against is 3"),
        ({"sides": [{"name": "a", "scores": {"hps": [1.0]}}]}, "has 1 values for 0 prompts"),
        ({"sides": [{"name": "a", "clips": {"0": "x"}}]}, "names a prompt"),
        ({"sides": [{}]}, "sides.0.name: Field required"),
        ([], "it is no object"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, broken: Any, message: str) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(broken))
    with pytest.raises(TuningError, match=message):
        read_evaluation(tmp_path)


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('{"format": 2, "si')
    with pytest.raises(TuningError, match=r"damaged .* delete it, then resume"):
        read_evaluation(tmp_path)

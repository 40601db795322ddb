"""Which clips of a training set can be used, and the report on the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import write_clip
from reward_tuning.finetune.metadata import ClipRow
from reward_tuning.finetune.survey import MAX_REPORTED, Survey, survey
from reward_tuning.progress import ProgressEvent
from tests.reward_tuning.finetune.clip_folder import numbered_clip
from tests.reward_tuning.kinds import write_media


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_media(tmp_path_factory.mktemp("media"))
    write_clip(numbered_clip(6, 32, 48), folder / "long.mp4")
    poses = (folder / "poses.txt").read_text().splitlines()
    (folder / "few.txt").write_text("\n".join(poses[:4]))
    (folder / "bad.txt").write_text("camera poses\n1 2 3\n")
    return folder


def row(media: Path, file: str, control: str | None = None) -> ClipRow:
    return ClipRow(media / file, "a", "video", None if control is None else media / control)


@pytest.mark.parametrize(
    ("control", "told"),
    [
        ("other.mp4", None),
        ("poses.txt", None),
        ("short.mp4", "3 frames are fewer than the 9 of"),
        ("few.txt", "3 poses are fewer than the 9 frames of"),
        ("bad.txt", "bad.txt"),
        ("gone.mp4", "no such file"),
        ("start.png", "1 frames are fewer than the 9 of"),
    ],
)
def test_a_control_file_must_last_as_long_as_its_clip(
    media: Path, control: str, told: str | None
) -> None:
    rows = [row(media, "video.mp4", control), row(media, "long.mp4")]
    found = survey(rows, controls=True)
    if told is None:
        assert len(found.clips) == 2
    else:
        ((path, reason),) = found.broken
        assert path == media / control
        assert told in reason
    assert len(survey(rows, controls=False).clips) == 2  # a model without control ignores it


def test_one_event_a_row(media: Path) -> None:
    events: list[ProgressEvent] = []
    survey([row(media, "video.mp4"), row(media, "corrupt.mp4")], progress=events.append)
    assert [(e.stage, e.done, e.total) for e in events] == [
        ("checking clips", 1, 2),
        ("checking clips", 2, 2),
    ]


def test_a_set_without_a_usable_clip_is_refused(media: Path) -> None:
    with pytest.raises(TuningError, match=r"data\.metadata: no clip can be used\.\n1 of 1 clips"):
        survey([row(media, "corrupt.mp4")])


def test_the_warning_names_the_first_and_counts_the_others() -> None:
    broken = tuple((Path(f"{i}.mp4"), f"{i}.mp4: damaged") for i in range(MAX_REPORTED + 2))
    lines = Survey((), broken).warning().splitlines()
    assert lines[0].startswith(f"{MAX_REPORTED + 2} of {MAX_REPORTED + 2} clips are")
    assert lines[1:] == [*(f"  {reason}" for _, reason in broken[:MAX_REPORTED]), "  and 2 more"]
    assert Survey((), ()).warning() == ""


def test_the_report_has_all_of_them() -> None:
    broken = tuple((Path(f"{i}.mp4"), f"{i}.mp4: 损坏") for i in range(30))
    text = Survey((), broken).report()
    assert "损坏" in text
    found = json.loads(text)
    assert found["usable"] == 0
    assert [entry["file"] for entry in found["broken"]] == [str(path) for path, _ in broken]

import os
from pathlib import Path

from reward_tuning.progress import ProgressEvent, silent
from reward_tuning.report.at_end import report_at_end
from tests.reward_tuning.report.evaluation_folder import write_evaluation


def test_a_report_is_written_once_for_an_evaluation(tmp_path: Path) -> None:
    write_evaluation(tmp_path, prompts=2, strengths=(1.0,))
    path = report_at_end(tmp_path, silent)
    assert path == tmp_path / "report.html"
    path.write_text("kept")
    later = (tmp_path / "evaluation.json").stat().st_mtime
    os.utime(path, (later + 1, later + 1))
    assert report_at_end(tmp_path, silent) == path
    assert path.read_text() == "kept"
    os.utime(path, (later - 1, later - 1))
    assert report_at_end(tmp_path, silent) == path
    assert path.read_text() != "kept"


def test_a_report_that_cannot_be_written_is_told_and_does_not_fail_the_run(tmp_path: Path) -> None:
    write_evaluation(tmp_path, prompts=2, strengths=(1.0,))
    (tmp_path / "report.html").mkdir()
    os.utime(tmp_path / "report.html", (0, 0))
    events: list[ProgressEvent] = []
    assert report_at_end(tmp_path, events.append) is None
    (event,) = events
    assert event.note.startswith(
        "everything else is finished, but the report could not be written (T"
    )
    assert f"`reward-tuning report {tmp_path}` tries again" in event.note

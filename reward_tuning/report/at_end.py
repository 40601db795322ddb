"""The report as the last act of a run or an evaluation, which is finished already."""

from __future__ import annotations

from pathlib import Path

from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.report.evaluations import EVALUATION
from reward_tuning.report.report_page import REPORT, write_report


def report_at_end(folder: Path, progress: ProgressFn) -> Path | None:
    """Write the report of a finished folder unless it has one of this evaluation.

    The folder is complete without it, so a fault of the report is no error of the run or the
    evaluation: a note tells it, with the command that writes the report again.

    Args:
        folder: Folder of a run or an evaluation.
        progress: Receives the note.

    Returns:
        Path of the report; None where it could not be written.
    """
    path = folder / REPORT
    try:
        if path.exists() and path.stat().st_mtime >= (folder / EVALUATION).stat().st_mtime:
            return path
        return write_report(folder)
    except Exception as error:
        note = (
            f"everything else is finished, but the report could not be written "
            f"({type(error).__name__}: {error}); `reward-tuning report {folder}` tries again"
        )
        progress(ProgressEvent("report", note=note))
        return None

"""Pages that show a run to people: one self-contained HTML file, and the live page."""

from reward_tuning.report.report_page import write_report

__all__ = ["write_report"]

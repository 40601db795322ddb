"""Tables as Markdown: a person's text stays text."""

from __future__ import annotations

from pathlib import Path

from reward_tuning.runs.tracker_parts import Table, TrackerStart


def test_a_table_as_markdown() -> None:
    table = Table(("metric", "base", "n"), [["clip", 0.123456789, 8], ["no\nline", None, 2**20]])
    assert table.markdown() == (
        "| metric | base | n |\n| --- | --- | --- |\n"
        "| clip | 0.123457 | 8 |\n| no line |  | 1048576 |"
    )


def test_a_text_cannot_leave_its_cell_or_become_markup() -> None:
    text = Table(("a",), [["x|y`<b>*_[z](u)\\"]]).markdown().splitlines()[-1]
    assert text == r"| x\|y\`\<b\>\*\_\[z\](u)\\ |"


def test_files_of_tools_have_a_folder_of_their_own() -> None:
    assert TrackerStart(Path("run")).place == Path("run/tracking")

"""Errors that fit on a screen, tables and JSON."""

import re
from pathlib import Path

import pytest

from reward_tuning.cli.output import (
    MAX_CHARS,
    MAX_LINES,
    error_text,
    harmless,
    print_json,
    print_table,
)
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.recipes_for_tests import write_recipe

run = pytest.fixture(command, name="run")


def test_long_errors_are_cut_and_what_is_left_out_is_counted(run: Command, tmp_path: Path) -> None:
    name = "".join(f"{i} " for i in range(2000))
    for arguments in (["show", name], ["validate", write_recipe(tmp_path), f"{name}=1"]):
        done = run(*arguments)
        assert done.code == 2
        assert len(done.err) < 500
    assert re.search(r"\d characters left out", run("show", name).err)
    assert run("show", "gone").err.endswith("`reward-tuning ls` lists the shipped ones\n")
    done = run("validate", write_recipe(tmp_path), *(f"{i}x{name}={i}" for i in range(40)))
    assert len(done.err) < 2000
    assert re.search(r"and \d+ more", done.err)


def test_a_short_error_is_left_alone_and_one_without_text_is_its_name() -> None:
    assert error_text(ValueError("a\nb")) == "a\nb"
    assert error_text(ValueError()) == "ValueError"


def test_short_lines_leave_their_room_to_long_ones() -> None:
    long = "x" * 460
    assert error_text(ValueError(f"short\n{long}")) == f"short\n{long}"
    assert len(error_text(ValueError(f"short\n{'x' * (MAX_CHARS - 4)}"))) <= MAX_CHARS
    cut = error_text(ValueError(f"{long}\n{long}")).splitlines()
    assert len(cut) == 2
    assert all(len(line) <= MAX_CHARS // 2 for line in cut)
    assert all("characters left out" in line for line in cut)


def test_a_command_is_never_cut() -> None:
    fetch = f"hps: {'x' * 300}; fetch it with: hf download name file@{'0' * 40}"
    text = f"{fetch}\n{fetch}\n{'y' * 3000}"
    lines = error_text(ValueError(text)).splitlines()
    assert lines[:2] == [fetch, fetch]
    assert "characters left out" in lines[2]
    endless = f"hf download {'z' * 3000}"
    assert len(error_text(ValueError(endless))) <= MAX_CHARS


def test_a_list_of_errors_ends_in_what_is_left_out() -> None:
    lines = error_text(ValueError("\n".join(map(str, range(30))))).splitlines()
    assert lines == [*map(str, range(MAX_LINES - 1)), "and 11 more lines"]


def test_a_table_shows_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("[/b] Title", ("name", "about"), [("a[b]", "[red]text[/red]")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["[/b] Title", "name  about", "a[b]  [red]text[/red]", ""]


def test_names_do_not_order_the_terminal(
    run: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert harmless("a\x1b[2J\x9b1m\x07\x7fb\tc\nd 美") == "a\\x1b[2J\\x9b1m\\x07\\x7fb\tc\nd 美"
    print_table("\x1b[2J", ("name", "about"), [("a\x1b]0;title\x07", "b\rc")])
    out = capsys.readouterr().out
    assert set("\x1b\x07\r").isdisjoint(out)
    assert "a\\x1b]0;title\\x07" in out
    done = run("show", tmp_path / "gone\x1b[2J.yaml")
    assert (done.code, "\x1b" in done.err) == (2, False)
    assert "gone\\x1b[2J.yaml" in done.err


def test_json_keeps_letters(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"prompt": "一个"})
    assert capsys.readouterr().out == '{\n  "prompt": "一个"\n}\n'

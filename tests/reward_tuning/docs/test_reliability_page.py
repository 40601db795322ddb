"""docs/reliability.md names tests that exist, and the exit codes that the commands have."""

import re
from pathlib import Path

from reward_tuning.cli import STOPPED_CODES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)


def test_every_named_test_exists() -> None:
    assert len(NAMED) > 40
    missing = [
        f"{file}::{name}"
        for file, name in NAMED
        if f"def {name}(" not in (ROOT / "tests" / file).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_no_test_is_named_twice_for_one_thing() -> None:
    rows = [line for line in PAGE.splitlines() if "::" in line and line.startswith("|")]
    assert len({*rows}) == len(rows)


def test_the_codes_of_a_stop_are_those_of_the_command() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, flags=re.MULTILINE)}
    assert {0, 1, 2, 137, *STOPPED_CODES} == codes

"""Answers that are kept: in memory, in a file, over a kill."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rewards import RewardError
from rewards.core.answers import Answers, answer_key

KEY = answer_key("judge", ["a" * 64], "a cat")


def test_a_key_depends_on_everything_that_was_asked() -> None:
    asked = [
        ("judge", ["ab"], "a cat"),
        ("judge2", ["ab"], "a cat"),
        ("judge", ["a", "b"], "a cat"),
        ("judge", ["b", "a"], "a cat"),
        ("judge", ["ab"], "a dog"),
        ("judge", ["ab"], ""),
        ("", ["judgeab"], "a cat"),
    ]
    keys = {answer_key(*one) for one in asked}
    assert len(keys) == len(asked)
    assert answer_key(*asked[0]) == answer_key("judge", ("ab",), "a cat")
    assert len(KEY) == 64


def test_the_very_same_numbers_come_back(tmp_path: Path) -> None:
    file = tmp_path / "answers" / "judge-rank0.jsonl"
    numbers = [0.1 + 0.2, math.pi * 1e-30, -1e5 / 3, 1.0, -0.0, 5e-324]
    first = Answers()
    first.add("before", 2 / 3)
    first.remember(file)
    for place, number in enumerate(numbers):
        first.add(str(place), number)
    again = Answers()
    again.remember(file)
    found = [again.get(str(place)) for place in range(len(numbers))]
    assert [float.hex(number) for number in found if number is not None] == [
        float.hex(number) for number in numbers
    ]
    assert again.get("before") == 2 / 3
    assert again.get("unknown") is None
    assert len(again) == len(numbers) + 1
    lines = file.read_text().splitlines()
    assert json.loads(lines[1]) == {"key": "0", "answer": 0.1 + 0.2}
    again.add("later", 1.5)
    assert file.read_text().splitlines() == [*lines, '{"key": "later", "answer": 1.5}']


@pytest.mark.parametrize("cut", [1, 20, 75])
def test_what_a_kill_left_of_the_last_line_is_cut_off(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "a.jsonl"
    one = Answers()
    one.remember(file)
    one.add(KEY, 0.25)
    whole = file.read_bytes()
    one.add("b" * 64, 0.75)
    file.write_bytes(file.read_bytes()[:-cut])
    again = Answers()
    again.remember(file)
    assert (again.get(KEY), again.get("b" * 64)) == (0.25, None)
    assert file.read_bytes() == whole
    again.add("c" * 64, 0.5)
    third = Answers()
    third.remember(file)
    assert len(third) == 2


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "",
        "[1, 2]",
        '{"key": "a"}',
        '{"key": 1, "answer": 0.5}',
        '{"key": "a", "answer": "0.5"}',
        '{"key": "a", "answer": NaN}',
        '{"key": "a", "answer": true}',
        '{"key": "a", "answer": 0.5, "more": 1}',
        "\0" * 8,
    ],
)
def test_other_damage_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "a.jsonl"
    good = '{"key": "g", "answer": 0.5}\n'
    file.write_text(f"{good}{line}\n{good}")
    with pytest.raises(RewardError, match=r"a\.jsonl, line 2 is damaged .*Remove this line"):
        Answers().remember(file)
    assert file.read_text() == f"{good}{line}\n{good}"


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RewardError, match=r"cannot be kept .*free some space"):
        Answers().remember(tmp_path / "file" / "a.jsonl")


def test_half_a_line_on_a_full_disk_is_taken_back(tmp_path: Path) -> None:
    import resource
    import signal

    file = tmp_path / "a.jsonl"
    one = Answers()
    one.remember(file)
    one.add(KEY, 0.25)
    size = file.stat().st_size
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limit[1]))
    try:
        with pytest.raises(RewardError, match="cannot be kept"):
            one.add("b" * 64, 0.5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert file.stat().st_size == size
    assert one.get("b" * 64) is None
    one.add("c" * 64, 0.5)
    again = Answers()
    again.remember(file)
    assert len(again) == 2


def test_the_first_answer_stays_in_memory_and_file(tmp_path: Path) -> None:
    """Two threads that ask about equal clips get one answer, as a resumed run does."""
    one = Answers()
    one.remember(tmp_path / "a.jsonl")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: one.add(str(number % 5), float(number)), range(200)))
    again = Answers()
    again.remember(tmp_path / "a.jsonl")
    assert len(again) == 5
    for key in map(str, range(5)):
        assert again.get(key) == one.get(key)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 5

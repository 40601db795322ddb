"""Judges that are real programs."""

from __future__ import annotations

import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from rewards import RewardError, load_reward
from rewards.core.black_box import BlackBoxReward
from rewards.errors import JudgeUnavailable
from rewards.kinds.command import CommandReward
from tests.rewards.judge_server import Waits, grey_clips

LEVELS = (0.2, 0.6, 0.4)

HEAD = """
import json, os, sys, time
import imageio.v3 as iio
def level(path): return float(iio.imread(path, plugin="FFMPEG").mean() / 255)
def say(**row): print(json.dumps(row), flush=True)
with open(os.path.join(os.path.dirname(__file__), "starts"), "a") as file:
    file.write(f"{os.getpid()}\\n")
def asked():
    for line in sys.stdin:
        yield json.loads(line)
"""
SCORE = """
for row in asked():
    assert set(row) == {"id", "clip", "prompt"}
    say(id=row["id"], score=level(row["clip"]) + len(row["prompt"]))
"""


def judge_of(folder: Path, code: str, waits: Waits | None = None, **options: Any) -> BlackBoxReward:
    (folder / "judge.py").write_text(HEAD + textwrap.dedent(code))
    command = [sys.executable, "judge.py"]
    judge = load_reward("command", command=command, folder=folder, name="mine", **options)
    assert isinstance(judge, BlackBoxReward)
    patience = (waits or Waits()).patience(judge.asking.patience.retries)
    judge.asking = replace(judge.asking, patience=patience)
    return judge


def starts(folder: Path) -> list[int]:
    file = folder / "starts"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_one_program_answers_line_by_line(tmp_path: Path) -> None:
    judge = judge_of(tmp_path, SCORE)
    assert starts(tmp_path) == []
    frames, prompts = grey_clips(*LEVELS), ["a", "bb", "cét"]
    scores = judge(frames, prompts)
    assert scores.tolist() == pytest.approx([1.2, 2.6, 3.4], abs=2 / 255)
    assert judge.at_rate(24.0)(frames, prompts).tolist() == scores.tolist()
    (pid,) = starts(tmp_path)
    assert psutil.pid_exists(pid)
    folder = judge._programs._folder.name  # type: ignore[attr-defined]
    assert list(Path(folder).iterdir()) == []
    judge.close()
    assert not psutil.pid_exists(pid)
    assert not Path(folder).exists()
    with pytest.raises(JudgeUnavailable, match="has been closed"):
        judge(grey_clips(0.9), ["a"])


def test_copies_run_at_the_same_time(tmp_path: Path) -> None:
    code = """
    for row in asked():
        open(row["clip"] + ".seen", "w").close()
        folder = os.path.dirname(row["clip"])
        until = time.time() + 20
        while sum(name.endswith(".seen") for name in os.listdir(folder)) < 2:
            assert time.time() < until
            time.sleep(0.01)
        say(id=row["id"], score=1.0)
    """
    judge = judge_of(tmp_path, code, parallel=2)
    assert judge(grey_clips(0.1, 0.2), ["a", "b"]).tolist() == [1.0, 1.0]
    assert len(set(starts(tmp_path))) == 2
    judge.close()


def test_pairs(tmp_path: Path) -> None:
    code = """
    for row in asked():
        assert set(row) == {"id", "clip_a", "clip_b", "prompt"}
        say(id=row["id"], preference=0.5 + level(row["clip_a"]) - level(row["clip_b"]))
    """
    judge = judge_of(tmp_path, code, pairwise=True)
    scores = judge(grey_clips(*LEVELS), ["a"] * 3)
    assert scores.tolist() == pytest.approx([-0.3, 0.3, 0.0], abs=4 / 255)
    judge.close()


FIRST = 'first = len(open(os.path.join(os.path.dirname(__file__), "starts")).readlines()) == 1\n'


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("sys.exit('no weights')", "it has ended with code 1; its stderr ends with: no weights"),
        ("os.kill(os.getpid(), 9)", "it was ended by SIGKILL"),
        ("time.sleep(60)", "no line within 2 s (timeout)"),
        ("print('Loading ...', flush=True)", "not JSON: Loading ... (messages belong on stderr)"),
        ("say(id=row['id'] + 1, score=1.0)", 'not {"id": 1, "score": ...}, but {"id": 2'),
        ("say(id=row['id'], result=1.0)", 'not {"id": 1, "score": ...}, but {"id": 1'),
    ],
)
def test_a_program_that_fails_is_replaced(tmp_path: Path, bad: str, told: str) -> None:
    body = f"for row in asked():\n    if first:\n        {bad}\n"
    body += "    else:\n        say(id=row['id'], score=0.5)\n"
    waits = Waits()
    judge = judge_of(tmp_path, FIRST + body, waits, timeout=2.0)
    assert judge(grey_clips(0.3, 0.6), ["a", "b"]).tolist() == [0.5, 0.5]
    one, two = starts(tmp_path)
    assert waits.seconds == [1]
    assert not psutil.pid_exists(one) or psutil.Process(one).status() == psutil.STATUS_ZOMBIE
    judge.close()
    (tmp_path / "starts").unlink()
    with pytest.raises(JudgeUnavailable) as caught:
        judge_of(tmp_path, FIRST + body, timeout=2.0, retries=0)(grey_clips(0.3), ["a"])
    assert str(caught.value).startswith(f"the judge mine ({sys.executable} ")
    assert told in str(caught.value)
    assert "Run the command by hand" in str(caught.value)
    del two


def test_a_bad_score_is_asked_again_from_the_same_program(tmp_path: Path) -> None:
    code = """
    for row in asked():
        say(id=row["id"], score=float("nan") if row["id"] == 1 else 0.25)
    """
    judge = judge_of(tmp_path, code)
    assert judge(grey_clips(0.3), ["a"]).tolist() == [0.25]
    assert len(starts(tmp_path)) == 1
    judge.close()


def test_a_line_too_many_is_noticed(tmp_path: Path) -> None:
    code = FIRST + textwrap.dedent("""
    for row in asked():
        say(id=row["id"], score=0.5)
        if first:
            print("done", flush=True)
    """)
    judge = judge_of(tmp_path, code)
    assert judge(grey_clips(0.3), ["a"]).tolist() == [0.5]
    time.sleep(0.3)
    assert judge(grey_clips(0.4), ["a"]).tolist() == [0.5]
    assert len(starts(tmp_path)) == 2
    judge.close()


def test_changed_code_is_another_judge(tmp_path: Path) -> None:
    first = judge_of(tmp_path, SCORE)
    assert first.about == judge_of(tmp_path, SCORE).about
    assert first.about != judge_of(tmp_path, SCORE + "# changed").about
    big = tmp_path / "weights.bin"
    with big.open("wb") as file:
        file.truncate(70 * 2**20)
    about = [
        load_reward("command", command=[sys.executable, "weights.bin"], folder=tmp_path).about  # type: ignore[attr-defined]
        for _ in range(2)
    ]
    assert about[0] == about[1]
    assert about[0]["content"][1].startswith("73400320 bytes of ")


def test_programs_that_do_not_exist_are_refused_when_loaded(tmp_path: Path) -> None:
    for command, told in (
        (["no-such-program-x"], "the program 'no-such-program-x' does not exist"),
        (["./judge.txt"], r"judge.txt' is not executable \(chmod \+x\)"),
        ([], "a part is empty"),
        (["python", ""], "a part is empty"),
    ):
        (tmp_path / "judge.txt").write_text("x")
        with pytest.raises(RewardError, match=told):
            load_reward("command", command=command, folder=tmp_path)
    with pytest.raises(RewardError, match="timeout is 0"):
        load_reward("command", command=["sh"], timeout=0.0)


def test_an_argument_that_can_be_no_name_of_a_file_is_passed_on(tmp_path: Path) -> None:
    """A program in one argument, longer than a file's name, and a home that nobody has."""
    code = "import json, sys\nfor line in sys.stdin:\n    row = json.loads(line)\n"
    code += "    print(json.dumps({'id': row['id'], 'score': 0.5}), flush=True)\n" + "#" * 4096
    command = [sys.executable, "-c", code, "~nobody-has-this-home"]
    judge = load_reward("command", command=command, folder=tmp_path, name="mine")
    assert judge(grey_clips(0.2), ["a"]).tolist() == [0.5]


def test_a_long_command_is_shown_by_its_ends() -> None:
    long = load_reward("command", command=["sh", "-c", "x" * 200, "the end"], name="mine")
    assert isinstance(long, CommandReward)
    assert long.where.startswith("(sh -c xxx")
    assert long.where.endswith("xxx 'the end')")
    assert len(long.where) == 122

"""Real programs: lines in and out, deaths, and that nothing is left running."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rewards.core.asking import FailedTry
from rewards.core.child_process import LONGEST_LINE, ChildProcess


def program(code: str) -> ChildProcess:
    return ChildProcess([sys.executable, "-u", "-c", code])


ECHO = "import sys\nfor line in sys.stdin: print('got ' + line.strip(), flush=True)"


def gone(pid: int, within: float = 10.0) -> bool:
    """Whether a process has ended, or does so soon."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_lines_go_in_and_out_and_the_end_of_the_input_ends_it() -> None:
    child = program(ECHO)
    assert child.exchange("one é", 20) == "got one é"
    assert child.exchange("two", 20) == "got two"
    assert child.spare_line() is None
    pid = child._process.pid
    assert child.alive
    began = time.monotonic()
    child.close()
    assert time.monotonic() - began < 1.9  # by itself, before SIGTERM
    assert not child.alive
    assert gone(pid)
    child.close()
    with pytest.raises(FailedTry):
        child.exchange("three", 1)


def test_a_death_is_told_with_its_last_words() -> None:
    child = program("import sys; input(); sys.exit('no weights\\nat /x')")
    with pytest.raises(FailedTry) as caught:
        child.exchange("one", 20)
    assert caught.value.what == ("it has ended with code 1; its stderr ends with: no weights at /x")
    child = program("import os, signal; input(); os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(FailedTry, match=r"it was ended by SIGKILL$"):
        child.exchange("one", 20)
    assert not child.alive
    with pytest.raises(FailedTry, match=r"it was ended by SIGKILL$"):
        child.exchange("again", 20)


def test_a_stuck_program_is_left_after_the_timeout() -> None:
    child = program("import sys, time; print('loading', file=sys.stderr); time.sleep(60)")
    began = time.monotonic()
    with pytest.raises(FailedTry, match=r"no line within 0\.5 s \(timeout\)"):
        child.exchange("one", 0.5)
    with pytest.raises(FailedTry, match=r"does not read its input within 0\.2 s"):
        child.exchange("x" * 2**20, 0.2)
    child.close(kill=True)
    assert time.monotonic() - began < 1.9
    assert gone(child._process.pid)


def test_an_endless_line_is_refused() -> None:
    child = program("import sys\nwhile True: sys.stdout.write('x' * 4096)")
    with pytest.raises(FailedTry, match=f"a line of more than {LONGEST_LINE:,} bytes: xxx"):
        child.exchange("one", 20)
    child.close(kill=True)


def test_a_program_that_ignores_the_end_is_killed_with_what_it_started() -> None:
    child = program(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "below = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(below.pid, flush=True)\n"
        "time.sleep(60)"
    )
    below = int(child.exchange("one", 20))
    child.close(kill=True)
    assert gone(below)
    assert gone(child._process.pid)


def test_a_process_that_was_left_behind_is_ended_too() -> None:
    child = program(
        "import subprocess, sys\n"
        "below = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
        " stdin=subprocess.DEVNULL)\n"
        "print(below.pid, flush=True)\n"
        "for line in sys.stdin: pass"
    )
    below = int(child.exchange("one", 20))
    assert psutil.pid_exists(below)
    child.close()
    assert gone(below)


def test_garbage_is_closed() -> None:
    child = program(ECHO)
    assert child.exchange("one", 20) == "got one"
    pid = child._process.pid
    del child
    gc.collect()
    assert gone(pid)


@pytest.mark.parametrize("command", [["/no/such/program"], ["/tmp"], ["a\0b"]])
def test_what_cannot_be_started(command: list[str]) -> None:
    with pytest.raises(FailedTry, match="it cannot be started") as caught:
        ChildProcess(command)
    assert not caught.value.again
    assert "Correct command" in caught.value.advice


HOLDER = f"""
import signal, sys, time
from rewards.core.child_process import ChildProcess
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
child = ChildProcess([sys.executable, "-u", "-c", {ECHO!r}])
child.exchange("one", 20)
print(child._process.pid, flush=True)
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("raise ValueError('wrong')", 1),
        ("time.sleep(60)", -signal.SIGINT),
        ("time.sleep(60)", -signal.SIGKILL),
    ],
    ids=["normal", "exception", "SIGINT", "SIGKILL"],
)
def test_nothing_outlives_the_process_that_holds_it(end: str, code: int) -> None:
    root = str(Path(__file__).parents[3])
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER + end],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert holder.stdout is not None
    pid = int(holder.stdout.readline())
    if code < 0:
        holder.send_signal(-code)
    assert holder.wait(30) == code
    assert gone(pid)

"""The process ends without the interpreter's shutdown, and loses nothing by it."""

import os
import subprocess
import sys

import pytest

CODE = """
import atexit, sys, threading, time
import reward_tuning.cli as cli

class Freed:
    def __del__(self):
        print("freed by the interpreter", flush=True)

freed = Freed()
ended = sys.argv.pop(1)

def late():
    time.sleep(0.3)
    print("thread", end=" ")

def main():
    atexit.register(print, "registered", end=" ")  # not flushed
    threading.Thread(target=late).start()
    print("main", end=" ")
    exec(ended)

cli.main = main
cli.script()
"""


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def ended_with(statement: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, statement],
        capture_output=True,
        text=True,
        check=False,
        env=BUFFERED,
    )


@pytest.mark.parametrize(
    ("statement", "code"), [("sys.exit()", 0), ("sys.exit(0)", 0), ("sys.exit(2)", 2)]
)
def test_threads_and_functions_end_first(statement: str, code: int) -> None:
    done = ended_with(statement)
    assert (done.returncode, done.stdout, done.stderr) == (code, "main thread registered ", "")


@pytest.mark.parametrize(
    ("statement", "text"), [("1 / 0", "ZeroDivisionError: "), ("sys.exit('told')", "told\n")]
)
def test_the_interpreter_ends_what_did_not_go_as_planned(statement: str, text: str) -> None:
    done = ended_with(statement)
    assert done.returncode == 1
    assert done.stdout == "main thread registered freed by the interpreter\n"
    assert text in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")  # noqa: PTH110
def test_a_stream_that_cannot_be_written_is_reported() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", CODE, "sys.exit()"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=BUFFERED,
        )
    assert done.returncode == 120  # the interpreter's own code for it
    assert "No space left on device" in done.stderr

"""A program that is kept alive and answers line by line; it never outlives this process."""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import select
import selectors
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Sequence
from typing import IO

from rewards.core.asking import FailedTry, quoted

LONGEST_LINE = 2**20
"""Characters of a line that is read; an answer has a few dozen."""
TAIL_LINES, TAIL = 20, 300
"""Lines of stderr that are kept, and characters of them that a message shows."""
GRACE = 2.0
"""Seconds for a program to end by itself when its input ends, and then after SIGTERM."""


class ChildProcess:
    """A running program, in a process group of its own.

    The group gets no Ctrl-C from the terminal; whoever holds this object closes it. Otherwise it
    is closed when it is garbage, or when the interpreter ends.

    Args:
        command: Program and arguments.

    Raises:
        FailedTry: It cannot be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise FailedTry(
                f"it cannot be started: {error}",
                again=False,
                advice="Correct command: its first entry is a program, by its path or a name on "
                "the PATH",
            ) from error
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._tail: collections.deque[bytes] = collections.deque(maxlen=TAIL_LINES)
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        self._stdin = stdin
        self._readers = [
            threading.Thread(target=_put_lines, args=(stdout, self._lines), daemon=True),
            threading.Thread(target=_keep_tail, args=(stderr, self._tail), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self._close = weakref.finalize(self, _end, self._process, stdin)

    @property
    def alive(self) -> bool:
        """Whether it has neither ended nor been closed."""
        return self._close.alive and self._process.poll() is None

    def exchange(self, line: str, timeout: float) -> str:
        """Write a line to its input, and return the next line of its output.

        Args:
            line: Without a line break.
            timeout: Seconds to wait.

        Raises:
            FailedTry: It has ended, does not answer in time, or sends an endless line.
        """
        until = time.monotonic() + timeout
        try:
            self._write(f"{line}\n".encode(), until, timeout)
        except (OSError, ValueError) as error:  # ValueError: closed
            raise FailedTry(self._ended()) from error
        try:
            found = self._lines.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise FailedTry(f"no line within {timeout:g} s (timeout){self._said()}") from None
        if found is None:
            raise FailedTry(self._ended())
        if not found.endswith(b"\n") and len(found) >= LONGEST_LINE:
            raise FailedTry(f"a line of more than {LONGEST_LINE:,} bytes: {quoted(found)}")
        return found.decode(errors="replace").rstrip("\r\n")

    def _write(self, content: bytes, until: float, timeout: float) -> None:
        """Write to its input, past its buffer: a program that does not read blocks nobody.

        Raises:
            FailedTry: It does not read in time.
        """
        rest, pipe = memoryview(content), self._stdin.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_WRITE)
            while rest:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise FailedTry(f"it does not read its input within {timeout:g} s (timeout)")
                rest = rest[os.write(pipe, rest[: select.PIPE_BUF]) :]

    def spare_line(self) -> str | None:
        """Return a line that it has written without being asked; None for none."""
        try:
            found = self._lines.get_nowait()
        except queue.Empty:
            return None
        return None if found is None else found.decode(errors="replace").rstrip("\r\n")

    def close(self, *, kill: bool = False) -> None:
        """End it and whatever it has started.

        Args:
            kill: At once, such as where it is stuck; else it may end by itself first.
        """
        if kill:
            _kill(self._process, signal.SIGKILL)
        self._close()

    def _ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        self._readers[1].join(GRACE)  # the last words, too
        code = self._process.poll()
        if code is None:
            how = "it has closed its output"
        elif code < 0:
            how = f"it was ended by {signal.Signals(-code).name}"
        else:
            how = f"it has ended with code {code}"
        return how + self._said()

    def _said(self) -> str:
        text = b"".join(list(self._tail)).decode(errors="replace").strip()
        shown = " ".join(text[-TAIL:].split())
        return f"; its stderr ends with: {shown}" if shown else ""


def _put_lines(stream: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    with contextlib.suppress(OSError, ValueError):
        while line := stream.readline(LONGEST_LINE):
            lines.put(line)
    lines.put(None)


def _keep_tail(stream: IO[bytes], tail: collections.deque[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):
        while line := stream.readline(4096):
            tail.append(line)


def _end(process: subprocess.Popen[bytes], stdin: IO[bytes]) -> None:
    """End a program: its input ends, then SIGTERM, then SIGKILL, to its whole group."""
    with contextlib.suppress(OSError):
        stdin.close()
    for number in (None, signal.SIGTERM):
        if number is not None:
            _kill(process, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
            break
    # The group may hold processes that the program started and left behind.
    _kill(process, signal.SIGKILL)
    process.wait()


def _kill(process: subprocess.Popen[bytes], number: int) -> None:
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
    else:
        process.kill()

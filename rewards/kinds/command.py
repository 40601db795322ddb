"""A judge that is a program of yours: it is kept alive, and asked and answers in lines of JSON.

In: `{"id": 1, "clip": "/tmp/.../1.mp4", "prompt": "..."}`, out: `{"id": 1, "score": 0.5}`. With
`pairwise`, `clip_a` and `clip_b` in, `{"id": 1, "preference": p}` out, p in [0, 1] that of
`clip_a`. The files are deleted after the answer. The program runs with the rights of the user who
starts the run: use only programs that you trust.
"""

from __future__ import annotations

import hashlib
import json
import queue
import shlex
import shutil
import tempfile
import threading
import weakref
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch

from rewards.core.asking import FailedTry, Patience, quoted
from rewards.core.base import CLIP_FPS
from rewards.core.black_box import Asking, BlackBoxReward
from rewards.core.child_process import ChildProcess
from rewards.core.shown_clip import Question
from rewards.errors import RewardError

HASHED = 64 * 2**20
"""Bytes of a file in the command up to which it counts by its content; a larger one, such as
weights, counts by its size and its time."""


class Programs:
    """Copies of one program, each of which answers one question at a time.

    They are started when they are first asked.

    Args:
        command: Program and arguments.
        number: How many may run at a time.
        timeout: Seconds for an answer; the first one includes the start.
    """

    def __init__(self, command: Sequence[str], number: int, timeout: float) -> None:
        self._command = list(command)
        self._timeout = timeout
        self._numbers = count(1)
        self._closed = threading.Event()
        self._starting = threading.Lock()
        self._free: queue.LifoQueue[ChildProcess | None] = queue.LifoQueue()
        self._running: weakref.WeakSet[ChildProcess] = weakref.WeakSet()
        for _ in range(number):
            self._free.put(None)
        self._folder = tempfile.TemporaryDirectory(prefix="judged-", ignore_cleanup_errors=True)

    def ask(self, clips: dict[str, bytes], prompt: str, wanted: str) -> Any:
        """Ask one question.

        Args:
            clips: Key of the line to the mp4 file.
            prompt: The prompt.
            wanted: Key of the answer.

        Raises:
            FailedTry: There is no answer; a program that is dead, stuck or out of step is replaced
                at the next try.
            RewardError: The clips cannot be written.
        """
        child = self._free.get()
        files: dict[str, Path] = {}
        answered = False
        try:
            if child is None or not child.alive:
                child = self._start()
            number = next(self._numbers)
            for key, content in clips.items():
                files[key] = Path(self._folder.name) / f"{number}-{key}.mp4"
                files[key].write_bytes(content)
            named = {key: str(file) for key, file in files.items()}
            line = json.dumps({"id": number, **named, "prompt": prompt}, ensure_ascii=False)
            if (spare := child.spare_line()) is not None:
                raise FailedTry(f"a line that nothing asked for: {quoted(spare)}")
            found = _answer_in(child.exchange(line, self._timeout), number, wanted)
            answered = True
            return found
        except OSError as error:
            raise RewardError(
                f"a clip cannot be written for the judge in {self._folder.name} ({error}); free "
                "some space, or set TMPDIR to another folder"
            ) from error
        finally:
            if child is not None and not answered:
                child.close(kill=True)
                child = None
            for file in files.values():
                file.unlink(missing_ok=True)
            self._free.put(child)

    def _start(self) -> ChildProcess:
        with self._starting:
            if self._closed.is_set():
                raise FailedTry("it is closed", again=False)
            child = ChildProcess(self._command)
            self._running.add(child)
            return child

    def close(self) -> None:
        """End the programs and delete the folder of the clips."""
        self._closed.set()
        with self._starting:  # one that another thread is just starting is ended, too
            running = list(self._running)
        for child in running:
            child.close()
        self._folder.cleanup()


def _answer_in(line: str, number: int, wanted: str) -> Any:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FailedTry(
            f"a line of output that is not JSON: {quoted(line)} (messages belong on stderr)"
        ) from error
    if not isinstance(row, dict) or row.get("id") != number or wanted not in row:
        raise FailedTry(f'not {{"id": {number}, "{wanted}": ...}}, but {quoted(line)}')
    return row[wanted]


class CommandReward(BlackBoxReward):
    """A judge that is a program.

    Args:
        command: Program and arguments.
        timeout: Seconds for an answer.
        asking: How it is asked; `parallel` programs run at a time.
    """

    def __init__(self, command: Sequence[str], timeout: float, asking: Asking) -> None:
        super().__init__(asking)
        self._command = list(command)
        self._content = [_content_of(part) for part in command]
        self._programs = Programs(command, asking.parallel, timeout)

    @property
    def about(self) -> dict[str, Any]:
        """The command, the content of its files, and how clips are shown."""
        asking = self.asking
        return {
            "kind": "command",
            "command": self._command,
            "content": self._content,
            "pairwise": asking.pairwise,
            "fps": asking.fps,
        }

    @property
    def where(self) -> str:
        """The command, its middle left out if it is long: its last words are worth the room."""
        text = quoted(shlex.join(self._command))
        return f"({text})" if len(text) <= 120 else f"({text[:80]} ... {text[-35:]})"

    @property
    def advice(self) -> str:
        """Run the program by hand."""
        return (
            "Run the command by hand with a line as docs/black-box-judges.md shows it, or raise "
            "timeout or retries"
        )

    def ask(self, questions: Sequence[Question]) -> Sequence[Any]:
        """Ask a program that is free."""
        (question,) = questions
        names = ("clip_a", "clip_b") if self.asking.pairwise else ("clip",)
        clips = {name: clip.mp4 for name, clip in zip(names, question.clips, strict=True)}
        wanted = "preference" if self.asking.pairwise else "score"
        return [self._programs.ask(clips, question.prompt, wanted)]

    def close(self) -> None:
        """End the waits, and the programs."""
        super().close()
        self._programs.close()


def load_command(
    *,
    device: torch.device,
    command: Sequence[str],
    folder: Path | None = None,
    timeout: float = 300.0,
    retries: int = 2,
    parallel: int = 1,
    fps: float | None = None,
    pairwise: bool = False,
    both_orders: bool = False,
) -> CommandReward:
    """Prepare a judge that is a program; it is started when it is first asked.

    The many parameters are the keys of the judge in a recipe.

    Args:
        device: Without effect: it chooses its own.
        command: Program and arguments. The program is a path or a name on the PATH; it and
            arguments that are files in `folder` become absolute.
        folder: Folder that relative paths start from.
        timeout: Seconds for an answer; the first one includes the start of the program.
        retries: Tries after the first.
        parallel: Copies of the program.
        fps: Frame rate of the files; None for that of the clips.
        pairwise: Ask which of two clips of a prompt is better.
        both_orders: Ask about each pair in both orders.

    Raises:
        RewardError: A value is out of its range, or there is no such program.
    """
    del device
    if not timeout > 0:
        raise RewardError(f"timeout is {timeout}; it must be above 0 seconds")
    asking = Asking(Patience(retries), parallel, 1, pairwise, both_orders, fps or CLIP_FPS)
    return CommandReward(resolved_command(command, folder or Path()), timeout, asking)


def resolved_command(command: Sequence[str], folder: Path) -> list[str]:
    """Return a command whose relative paths are absolute.

    Args:
        command: Program and arguments. An argument is a path if there is a file of that name.
        folder: Folder that relative paths start from.

    Raises:
        RewardError: It is empty, or there is no such program.
    """
    if not command or not all(command):
        raise RewardError("command: a part is empty; give the program and its arguments")
    program, *arguments = (
        # Not `resolve`: the python of a virtual environment is a link, and means that environment.
        part if (file := file_of(part, folder)) is None else str(file.absolute())
        for part in command
    )
    if shutil.which(program) is None:
        what = "is not executable (chmod +x)" if file_of(program) else "does not exist"
        raise RewardError(
            f"command: the program {program!r:.200} {what}: neither under {folder.resolve()} nor "
            "on the PATH"
        )
    return [program, *arguments]


def file_of(part: str, folder: Path = Path()) -> Path | None:
    """Return the file that a part of a command names; None if it names none.

    Args:
        part: Program or argument.
        folder: Folder that relative paths start from.
    """
    try:
        file = folder / Path(part).expanduser()
        return file if file.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long for a name, or nobody's home: ~x
        return None


def _content_of(part: str) -> str:
    """Return what identifies the content of a file in a command; empty for other arguments."""
    if (file := file_of(part)) is None:
        return ""
    about = file.stat()
    if about.st_size > HASHED:
        return f"{about.st_size} bytes of {about.st_mtime_ns}"
    return hashlib.sha256(file.read_bytes()).hexdigest()

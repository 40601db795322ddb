"""Answers of judges that cannot be repeated for free, kept by what was asked.

A judge outside this process may be slow, paid, or answer differently each time. Its answers are
kept in memory and, if wanted, in an append-only file, so that a run that is killed and resumed asks
nothing twice and continues with the very same numbers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from rewards.errors import RewardError


def answer_key(identity: str, digests: Sequence[str], prompt: str) -> str:
    """Hash everything that an answer depends on.

    Args:
        identity: Everything about the judge.
        digests: Hash of each clip, of its shape and its bytes (`ShownClip.digest`).
        prompt: The text that it reads; empty for none.

    Returns:
        64 hexadecimal digits.
    """
    asked = json.dumps([identity, list(digests), prompt], ensure_ascii=True)
    return hashlib.sha256(asked.encode()).hexdigest()


class Answers:
    """Key of a question (`answer_key`) to the judge's number, in memory and in one file.

    One process may write a file at a time; the caller gives each process its own. Several threads
    of it may ask and answer.
    """

    def __init__(self) -> None:
        self._known: dict[str, float] = {}
        self._file: Path | None = None
        self._size = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> float | None:
        """Return an answer; None if this was never answered."""
        return self._known.get(key)

    def remember(self, file: Path) -> None:
        """Read the answers in a file, and append every later one to it.

        Answers from before the call are added to the file. What a killed process wrote of its last
        line is cut off.

        Args:
            file: JSON lines `{"key": ..., "answer": ...}`; made if it does not exist.

        Raises:
            RewardError: The file is damaged (the message names the line), or cannot be read or
                written.
        """
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            content = file.read_bytes() if file.exists() else b""
            whole = content.rfind(b"\n") + 1
            found = _parsed(content[:whole], file)
            if whole < len(content):
                os.truncate(file, whole)
        except OSError as error:
            raise _not_kept(file, error) from error
        with self._lock:
            before = {key: answer for key, answer in self._known.items() if key not in found}
            self._known |= found
            self._file, self._size = file, whole
            self._append(before)

    def add(self, key: str, answer: float) -> None:
        """Keep an answer; the first one to a question stays.

        Raises:
            RewardError: The file cannot be written, such as on a full disk.
        """
        with self._lock:
            if key not in self._known:
                self._append({key: answer})
                self._known[key] = answer

    def _append(self, answers: dict[str, float]) -> None:
        if self._file is None or not answers:
            return
        lines = (json.dumps({"key": key, "answer": one}) for key, one in answers.items())
        content = "".join(f"{line}\n" for line in lines).encode()
        try:
            with self._file.open("ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            # The next line must not follow the half of this one.
            with contextlib.suppress(OSError):
                os.truncate(self._file, self._size)
            raise _not_kept(self._file, error) from error
        self._size += len(content)


def _parsed(content: bytes, file: Path) -> dict[str, float]:
    """Parse whole lines; the first answer to a question counts.

    Raises:
        RewardError: A line is not what `Answers` writes.
    """
    found: dict[str, float] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            row = json.loads(line)
            key, answer = row["key"], row["answer"]
            if set(row) != {"key", "answer"} or not isinstance(key, str):
                raise ValueError("other keys than key and answer")
            if type(answer) is not float or not math.isfinite(answer):
                raise ValueError(f"the answer is {answer!r:.40}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RewardError(
                f"{file}, line {number} is damaged ({str(error) or type(error).__name__:.80}): it "
                "is no answer of a judge. Remove this line to have the judge asked again, or "
                "restore the file from a copy"
            ) from error
        found.setdefault(key, answer)
    return found


def _not_kept(file: Path, error: OSError) -> RewardError:
    return RewardError(
        f"{file}: a judge's answers cannot be kept ({error.strerror or error}); free some space, "
        "or make the folder writable, and start again"
    )

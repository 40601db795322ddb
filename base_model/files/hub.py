"""Checkpoints from the hub: data alone, of one revision, each file's hash compared.

The hub's own library downloads, shows progress, resumes what was cut off and keeps a cache; nothing
that is downloaded is run. Two things it does not do. It does not look at the content: a file whose
bytes were damaged, on the way or on the disk, would be used. Its cache names each file by the hash
that the hub gave, so the comparison needs no connection. And it waits without end for the answer to
its first question (huggingface_hub 2.4.0: no timeout on the API, whatever HF_HUB_ETAG_TIMEOUT and
HF_HUB_DOWNLOAD_TIMEOUT say). So it works in a process of its own, which is ended when nothing has
arrived for a minute; a thread could not be ended, nor could Ctrl-C end those that it starts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from base_model.errors import GeneratorError

HUB_ID = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>[\w.-]+(/[\w.-]+)*))?")
"""`org/name`, or `org/name@revision`: a branch, a tag or a commit."""

TIMEOUT = "REWARD_TUNING_HUB_TIMEOUT"
"""Environment variable: seconds without a byte from the hub before the download is given up."""

SILENT_FOR = 60
_LOOK_EVERY = 0.5

# What a checkpoint's parts may consist of: no code, no pickles.
_ENDINGS = ("json", "safetensors", "txt", "jinja", "model")
_RECORD = "reward-tuning-verified.json"
_SHA256, _GIT = 64, 40  # hex digits: files in large-file storage, and all others


def parts_of(parts: Iterable[str]) -> list[str]:
    """Patterns for the files of a checkpoint's parts, such as `transformer`."""
    inside = [f"{part}/*.{ending}" for part in parts for ending in _ENDINGS]
    return ["model_index.json", "scheduler/*.json", *inside]


def download(hub_id: str, patterns: Sequence[str]) -> Path:
    """A checkpoint's files from the hub, or from its cache on this machine.

    Args:
        hub_id: `org/name`, or `org/name@revision`; without a revision its newest, which a
            later call may find changed.
        patterns: Of the files that are wanted (`parts_of`).

    Returns:
        Their folder in the cache, named by the commit.

    Raises:
        GeneratorError: When the hub does not give them, or a file's hash differs (it is deleted
            then, so that the next call fetches it again).
    """
    found = HUB_ID.fullmatch(hub_id)
    name, revision = (found["name"], found["revision"]) if found else (hub_id, None)
    wanted = {"name": name, "revision": revision, "patterns": list(patterns)}
    limit = _limit()
    answer = _asked(wanted, limit)
    if answer is None:
        answer = _asked(wanted, limit, offline=True) or {}
        if "folder" not in answer:
            raise _not_downloaded(hub_id, name, _silence(limit))
        warnings.warn(
            f"{_silence(limit)}, so {hub_id!r} is used as it is in the local cache. "
            "Set HF_HUB_OFFLINE=1 to skip the hub.",
            stacklevel=2,
        )
    if "folder" not in answer:
        raise _not_downloaded(hub_id, name, answer["error"])
    folder = Path(answer["folder"])
    verify(folder)
    return folder


def _limit() -> float:
    """Seconds without a byte after which the hub counts as silent."""
    text = os.environ.get(TIMEOUT, str(SILENT_FOR))
    with contextlib.suppress(ValueError):
        if 0 < (limit := float(text)) < float("inf"):
            return limit
    raise GeneratorError(
        f"{TIMEOUT} is {text!r}; give the seconds to wait for the hub, such as {SILENT_FOR}."
    )


def _silence(limit: float) -> str:
    from huggingface_hub import constants

    return (
        f"{constants.ENDPOINT} has sent nothing for {limit:g} seconds ({TIMEOUT} sets how long to "
        "wait)"
    )


def _asked(wanted: dict[str, Any], limit: float, *, offline: bool = False) -> dict[str, Any] | None:
    """What the downloading process answers; None when it was ended because nothing arrived."""
    from huggingface_hub import constants

    environment = {
        **os.environ,
        "HF_HUB_CACHE": str(constants.HF_HUB_CACHE),
        "HF_HUB_OFFLINE": str(int(offline or constants.HF_HUB_OFFLINE)),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    with tempfile.NamedTemporaryFile(prefix="reward-tuning-pulse-") as pulse:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "base_model.files.hub_process",
                json.dumps(wanted | {"pulse": pulse.name}),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        told = _answer(process, Path(pulse.name), limit)
    if told is None:
        return None
    lines = told.splitlines()
    if process.returncode != 0 or not lines:
        return {"error": f"the download ended with exit code {process.returncode}"}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _answer(process: subprocess.Popen[str], pulse: Path, limit: float) -> str | None:
    """What a process writes; None if it was ended after `limit` seconds without a pulse."""
    beat, since = pulse.stat().st_mtime_ns, time.monotonic()
    try:
        while True:
            try:
                return process.communicate(timeout=_LOOK_EVERY)[0]
            except subprocess.TimeoutExpired:
                last = pulse.stat().st_mtime_ns
                if last != beat:
                    beat, since = last, time.monotonic()
                elif time.monotonic() - since > limit:
                    return None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def verify(folder: Path) -> None:
    """Compares the files of a snapshot in the hub's cache with the hashes that name them.

    A file is read once; size and time of its last change are remembered beside it.

    Raises:
        GeneratorError: When a file differs; it is deleted.
    """
    record = folder.parent.parent / _RECORD
    known = _known(record)
    fresh = dict(known)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        blob = path.resolve()
        about = blob.stat()
        stamp = [about.st_size, about.st_mtime_ns]
        if not _is_hash(blob.name) or known.get(blob.name) == stamp:
            continue
        found = _hash(blob, like=blob.name)
        if found != blob.name:
            blob.unlink()
            path.unlink(missing_ok=True)
            raise GeneratorError(
                f"{path.relative_to(folder)} of {folder} is damaged: its hash is {found}, not the "
                f"hub's {blob.name}. It has been deleted; start again, and it alone is fetched."
            )
        fresh[blob.name] = stamp
    if fresh != known:
        # A cache that cannot be written to is only verified again each time.
        with contextlib.suppress(OSError):
            record.write_text(json.dumps(fresh), encoding="utf-8")


def _known(record: Path) -> dict[str, list[int]]:
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or cut off: everything is read again
        return {}
    return content if isinstance(content, dict) else {}


def _is_hash(name: str) -> bool:
    return len(name) in (_SHA256, _GIT) and not set(name) - set("0123456789abcdef")


def _hash(path: Path, *, like: str) -> str:
    """SHA-256 of a file, or the SHA-1 that git names it by, as the given one is."""
    if len(like) == _SHA256:
        digest = hashlib.sha256()
    else:
        header = b"blob %d\0" % path.stat().st_size
        digest = hashlib.sha1(header, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _not_downloaded(hub_id: str, name: str, reason: str) -> GeneratorError:
    return GeneratorError(
        f"The checkpoint {hub_id!r} is not in the local cache and could not be downloaded: "
        f"{reason}. What has arrived is kept. Check the name and the "
        f"connection and start again, or run `hf download {name} --local-dir FOLDER` on a machine "
        "with access (older: `huggingface-cli download`) and give FOLDER as the checkpoint."
    )

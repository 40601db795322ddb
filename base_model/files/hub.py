"""Download checkpoints from the hub: data files only, of one revision, with every hash verified.

The hub's own library downloads, shows progress, resumes interrupted downloads and keeps a cache;
nothing that is downloaded is executed. The library lacks two things. It does not verify content: a
file that was damaged in transit or on the disk would be used. Its cache names each file by the hash
that the hub gave, so the comparison needs no connection. And it waits forever for the answer to its
first request (huggingface_hub 2.4.0: no timeout on the API, whatever HF_HUB_ETAG_TIMEOUT and
HF_HUB_DOWNLOAD_TIMEOUT say). It therefore runs in a process of its own, which is killed when
nothing has arrived for a minute; a thread could not be killed, nor could Ctrl-C end the threads it
starts.
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
"""Environment variable: seconds without a byte from the hub before the download stops."""

SILENT_FOR = 60  # seconds; the value of `TIMEOUT` where it is not set
_LOOK_EVERY = 0.5  # seconds between two looks at the download

# Files of a checkpoint's parts: no code, no pickles.
_ENDINGS = ("json", "safetensors", "txt", "jinja", "model")
_RECORD = "reward-tuning-verified.json"
_SHA256, _GIT = 64, 40  # hex digits of the hash: files in large-file storage, and all others


def parts_of(parts: Iterable[str]) -> list[str]:
    """Return patterns for the files of a checkpoint's parts, such as `transformer`."""
    inside = [f"{part}/*.{ending}" for part in parts for ending in _ENDINGS]
    return ["model_index.json", "scheduler/*.json", *inside]


def download(hub_id: str, patterns: Sequence[str]) -> Path:
    """Download the files of a checkpoint from the hub, or find them in the local cache.

    Args:
        hub_id: `org/name`, or `org/name@revision`; without a revision the newest, which may have
            changed at a later call.
        patterns: Patterns of the required files (`parts_of`).

    Returns:
        Their folder in the cache, named by the commit.

    Raises:
        GeneratorError: The download fails, or a file's hash differs (the file is then deleted, so
            that the next call fetches it again).
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
    """Return the seconds without a byte after which the download stops."""
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
    """Return the answer of the downloading process; None if it was killed for its silence."""
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
        reply = _answer(process, Path(pulse.name), limit)
    if reply is None:
        return None
    lines = reply.splitlines()
    if process.returncode != 0 or not lines:
        return {"error": f"the download ended with exit code {process.returncode}"}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _answer(process: subprocess.Popen[str], pulse: Path, limit: float) -> str | None:
    """Return the output of a process; kill it and return None after `limit` seconds of silence."""
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
    """Compare the files of a snapshot in the hub's cache with the hashes that name them.

    A file is read once; its size and modification time are recorded next to it.

    Raises:
        GeneratorError: A file differs; it is deleted.
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
                f"hub's {blob.name}. It has been deleted; run the command again to fetch it."
            )
        fresh[blob.name] = stamp
    if fresh != known:
        # A read-only cache is verified again each time.
        with contextlib.suppress(OSError):
            record.write_text(json.dumps(fresh), encoding="utf-8")


def _known(record: Path) -> dict[str, list[int]]:
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no record, or a truncated one: all files are read again
        return {}
    return content if isinstance(content, dict) else {}


def _is_hash(name: str) -> bool:
    return len(name) in (_SHA256, _GIT) and not set(name) - set("0123456789abcdef")


def _hash(path: Path, *, like: str) -> str:
    """Return the SHA-256 of a file, or git's SHA-1, whichever `like` is."""
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
        f"{reason}. Downloaded parts are kept. Check the name and the "
        f"connection and try again, or run `hf download {name} --local-dir FOLDER` on a machine "
        "with access (older: `huggingface-cli download`) and give FOLDER as the checkpoint."
    )

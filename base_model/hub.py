"""Checkpoints from the hub: data alone, of one revision, each file's hash compared.

The hub's own library downloads, shows progress, resumes what was cut off and keeps a cache; nothing
that is downloaded is run. What it does not do is look at the content: a file whose bytes were
damaged, on the way or on the disk, would be used. Its cache names each file by the hash that the
hub gave, so the comparison needs no connection.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from base_model.errors import GeneratorError

HUB_ID = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>[\w.-]+(/[\w.-]+)*))?")
"""``org/name``, or ``org/name@revision``: a branch, a tag or a commit."""

# What a checkpoint's parts may consist of: no code, no pickles.
_ENDINGS = ("json", "safetensors", "txt", "jinja", "model")
_RECORD = "reward-tuning-verified.json"
_SHA256, _GIT = 64, 40  # hex digits: files in large-file storage, and all others


def parts_of(parts: Iterable[str]) -> list[str]:
    """Patterns for the files of a checkpoint's parts, such as ``transformer``."""
    inside = [f"{part}/*.{ending}" for part in parts for ending in _ENDINGS]
    return ["model_index.json", "scheduler/*.json", *inside]


def download(hub_id: str, patterns: Sequence[str]) -> Path:
    """A checkpoint's files from the hub, or from its cache on this machine.

    Args:
        hub_id: ``org/name``, or ``org/name@revision``; without a revision its newest, which a
            later call may find changed.
        patterns: Of the files that are wanted (:func:`parts_of`).

    Returns:
        Their folder in the cache, named by the commit.

    Raises:
        GeneratorError: When the hub does not give them, or a file's hash differs (it is deleted
            then, so that the next call fetches it again).
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    found = HUB_ID.fullmatch(hub_id)
    name, revision = (found["name"], found["revision"]) if found else (hub_id, None)
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (HFValidationError, OSError) as error:
        raise _not_downloaded(hub_id, name, error) from error
    except Exception as error:
        if not _from_the_network(error):
            raise
        raise _not_downloaded(hub_id, name, error) from error
    verify(folder)
    return folder


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


def _from_the_network(error: Exception) -> bool:
    """Whether the hub's library or the client it uses raised this: httpx2, httpx or requests."""
    packages = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return bool(packages & {"huggingface_hub", "httpx2", "httpx", "requests"})


def _not_downloaded(hub_id: str, name: str, error: Exception) -> GeneratorError:
    reason = (str(error).strip() or "no reason given").splitlines()[0].rstrip(".")
    return GeneratorError(
        f"The checkpoint {hub_id!r} is not in the local cache and could not be downloaded: "
        f"{type(error).__name__}: {reason}. What has arrived is kept. Check the name and the "
        f"connection and start again, or run `hf download {name} --local-dir FOLDER` on a machine "
        "with access (older: `huggingface-cli download`) and give FOLDER as the checkpoint."
    )

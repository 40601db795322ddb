"""Records of the published judges: file, size, source, and what it needs to run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PublishedFile:
    """One published checkpoint.

    Attributes:
        name: Name that a recipe may use.
        kind: Kind of the judge; `tower` for a network below a head, `tokenizer` for a vocabulary.
        repo: Hub repository, the address of a git repository or of a folder on the web, or the
            name of a Python package that contains the file.
        file: Name in that repository; empty for a judge that is the whole repository.
        size: Bytes, if the publisher states it or the reference measured it.
        tensors: Bytes of its tensors, shown if `size` is unknown; not checked.
        sha256: Hash of the file, if known; checked on every load.
        architecture: open_clip's model name.
        tower: Published name of the CLIP below a head.
        revision: Commit of the repository that the record describes; `None` for the newest.
        md5: Hash of the file, if its publisher states no better one; checked on every load.
        module: Import name of the Python package whose folder contains the file.
        note: Anything else that matters.
    """

    name: str
    kind: str
    repo: str
    file: str
    size: int | None = None
    sha256: str | None = None
    architecture: str | None = None
    tower: str | None = None
    revision: str | None = None
    tensors: int | None = None
    md5: str | None = None
    module: str | None = None
    note: str | None = None

    @property
    def about(self) -> str:
        """Its size in words."""
        if self.size is None and self.tensors is None:
            return "size not recorded"
        return f"{(self.size or self.tensors or 0) / 1e9:.3g} GB"

    @property
    def from_git(self) -> bool:
        """Whether the file is in a git repository."""
        return self.repo.startswith("https://github.com/")

    @property
    def from_hub(self) -> bool:
        """Whether the file is on the hub, and so may be in its cache."""
        return self.module is None and not self.repo.startswith("https://")

    @property
    def fetch(self) -> str:
        """The command that fetches the file."""
        if self.module is not None:
            return f"pip install {self.repo}"
        if self.from_git:
            return f"git clone --depth 1 {self.repo}"
        if not self.from_hub:
            return f"curl -LO {self.repo}/{self.file}"
        return fetch_command(self.repo, self.file, self.revision)


def fetch_command(repo: str, file: str, revision: str | None) -> str:
    """Return the command that fetches a file of the hub, or all files if its name is empty."""
    command = f"hf download {repo} {file}".strip()
    return command + (f" --revision {revision}" if revision else "")


RECORDS = Path(__file__).with_suffix(".json")
"""The records as data, so that `reward-tuning ls` reads them without importing this package."""

PUBLISHED = tuple(PublishedFile(**record) for record in json.loads(RECORDS.read_text("utf-8")))

_COMMON_NAMES = ("open_clip_model.safetensors", "model.safetensors", "vocab.txt")
"""File names that many models on the hub share: such a name alone identifies no record."""


def published(text: str) -> PublishedFile | None:
    """Return the record that a recipe's name, hub id, or file name refers to."""
    base = text.replace("\\", "/").rsplit("/", 1)[-1]
    for entry in PUBLISHED:
        if text in (entry.name, f"{entry.repo}/{entry.file}".rstrip("/")):
            return entry
        own = entry.file.rsplit("/", 1)[-1]
        if own and base == own and own not in _COMMON_NAMES:
            return entry
    return None

"""The published judges: which file, how large, from where, and what it needs to run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PublishedFile:
    """One published checkpoint.

    Attributes:
        name: What a recipe may write.
        kind: The judge it is for; `tower` for a network under a head, `tokenizer` for words.
        repo: Hub repository, the address of a git repository or of a folder on the web, or the
            name of a Python package that holds the file.
        file: Name in that repository; empty for a judge that is the whole repository.
        size: Bytes, where the publisher states or the reference measured it.
        tensors: Bytes of its tensors, told where `size` is not known; not checked.
        sha256: Of the file, where known; checked on every load.
        architecture: open_clip's model name.
        tower: Published name of the CLIP under a head.
        revision: Commit of the repository that the record speaks of; `None` for its newest.
        md5: Of the file, where its publisher states nothing better; checked on every load.
        module: The import name of that Python package, in whose folder the file lies.
        note: What else is to be known.
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
        """How large it is, in words."""
        if self.size is None and self.tensors is None:
            return "size not recorded"
        return f"{(self.size or self.tensors or 0) / 1e9:.3g} GB"

    @property
    def from_git(self) -> bool:
        """Whether the file lies in a git repository."""
        return self.repo.startswith("https://github.com/")

    @property
    def from_hub(self) -> bool:
        """Whether the file lies on the hub, and so may be in its cache."""
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
    """The command that fetches a file of the hub into its cache; all files where it is empty."""
    command = f"hf download {repo} {file}".strip()
    return command + (f" --revision {revision}" if revision else "")


RECORDS = Path(__file__).with_suffix(".json")
"""The records as data, which `reward-tuning ls` reads without importing this package."""

PUBLISHED = tuple(PublishedFile(**record) for record in json.loads(RECORDS.read_text("utf-8")))

_COMMON_NAMES = ("open_clip_model.safetensors", "model.safetensors", "vocab.txt")
"""Every model of these libraries has such a file on the hub: such a name alone means nothing."""


def published(text: str) -> PublishedFile | None:
    """The published file that a recipe's name, hub id, or file name means."""
    base = text.replace("\\", "/").rsplit("/", 1)[-1]
    for entry in PUBLISHED:
        if text in (entry.name, f"{entry.repo}/{entry.file}".rstrip("/")):
            return entry
        own = entry.file.rsplit("/", 1)[-1]
        if own and base == own and own not in _COMMON_NAMES:
            return entry
    return None

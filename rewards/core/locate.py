"""Find the file of a judge on this machine by its name in a recipe; downloads nothing."""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from rewards.core.published import PUBLISHED, PublishedFile, fetch_command, published
from rewards.errors import RewardError

SHIPPED = Path(__file__).parents[1] / "weights"


def shipped_names() -> list[str]:
    """List the judges' files and folders in the package, such as `tiny/hps.safetensors`."""
    files = SHIPPED.rglob("*.safetensors")
    places = {p.parent if (p.parent / "config.json").is_file() else p for p in files}
    places |= {p.parent for p in SHIPPED.rglob("model_config.json")}
    return sorted(place.relative_to(SHIPPED).as_posix() for place in places)


def resolve_file(checkpoint: str | Path, folder: Path | None = None) -> Path:
    """Find a judge's file: shipped name, then path, then published name or hub id in the cache.

    Nothing is downloaded: a judge can be gigabytes, so fetching it is the user's decision.

    Args:
        checkpoint: Name in the recipe.
        folder: Folder that relative paths start from; the working directory if not given.

    Returns:
        Path of an existing file.

    Raises:
        RewardError: It is not on this machine; the message says how large it is, where it comes
            from and which command fetches it.
    """
    text = str(checkpoint)
    for place in (SHIPPED / text, (folder or Path()) / Path(text).expanduser()):
        with contextlib.suppress(OSError):  # the name is too long for a file
            if place.is_file():
                return place
    hub = HubFile.of(text)
    if hub is None or (found := _in_package(hub) or _in_hub_cache(hub)) is None:
        raise RewardError(_missing(text, folder, hub))
    return found


@dataclass(frozen=True)
class HubFile:
    """A file of the hub, by published name or as `org/repo/file` or `org/repo/file@revision`.

    Attributes:
        repo: Such as `xswu/HPSv2`.
        file: Its path in the repository.
        revision: A commit, tag or branch; `None` for the newest.
        published: The record of a published file.
    """

    repo: str
    file: str
    revision: str | None = None
    published: PublishedFile | None = None

    @classmethod
    def of(cls, text: str) -> HubFile | None:
        """Parse a name in a recipe; `None` if it cannot be on the hub or in git."""
        name, _, revision = text.partition("@")
        entry = published(name)
        if entry is not None:
            return cls(entry.repo, entry.file, revision or entry.revision, entry)
        if name.count("/") < 2 or Path(name).is_absolute():
            return None
        org, repo, file = name.split("/", 2)
        return cls(f"{org}/{repo}", file, revision or None)

    @property
    def fetch(self) -> str:
        """The command that fetches it."""
        if self.published is not None and not self.published.from_hub:
            return self.published.fetch
        return fetch_command(self.repo, self.file, self.revision)


def _in_package(hub: HubFile) -> Path | None:
    """Find a file in an installed Python package, without importing it."""
    module = hub.published.module if hub.published is not None else None
    spec = importlib.util.find_spec(module) if module is not None else None
    folders = spec.submodule_search_locations if spec is not None else None
    places = [Path(folder) / hub.file for folder in folders or ()]
    return next((place for place in places if place.is_file()), None)


def _in_hub_cache(hub: HubFile) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    revisions = [hub.revision]
    if hub.published is not None and not hub.published.from_hub:
        return None
    if hub.published is not None and hub.published.sha256:
        revisions.append(None)  # fetched without a revision: the hash tells if it is the same file
    try:
        found = [try_to_load_from_cache(hub.repo, hub.file, revision=one) for one in revisions]
    except HFValidationError:  # not the name of a repository: a path with a typing mistake
        return None
    return next((Path(one) for one in found if isinstance(one, str)), None)


def _missing(text: str, folder: Path | None, wanted: HubFile | None) -> str:
    place = (folder or Path()).absolute()
    entry = wanted.published if wanted is not None else None
    if wanted is not None and entry is not None:
        return (
            f"judge {text!r} is not on this machine: it needs {entry.file} ({entry.about}) from "
            f"{entry.repo}. Fetch it with: {wanted.fetch}  - or give the path of your copy as the "
            "checkpoint"
        )
    hub = ""
    if wanted is not None:
        hub = (
            f". If it is a hub id, it needs {wanted.file} of {wanted.repo} "
            f"({'revision ' + wanted.revision if wanted.revision else 'its newest revision'}; its "
            f"page shows the size). Fetch it with: {wanted.fetch}"
        )
    return (
        f"judge checkpoint {text!r} does not exist: it is not a shipped name "
        f"({', '.join(shipped_names()) or 'none shipped'}), a file under {place}, or a published "
        f"name ({', '.join(e.name for e in PUBLISHED)}){hub}"
    )

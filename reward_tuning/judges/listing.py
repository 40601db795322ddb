"""The available judges, described in words: shipped ones, kinds without a file, published names.

Nothing here imports torch or the package `rewards`: kinds are described by their sections, shipped
files by their metadata, published ones by the records that `rewards` keeps as data.
"""

import json
from pathlib import Path
from typing import Any

from reward_tuning.files.safetensors_header import safetensors_metadata
from reward_tuning.schema.black_box_kinds import BLACK_BOXES
from reward_tuning.schema.judge_kinds import KINDS
from reward_tuning.schema.locate import shipped_folder, shipped_judges

PARTS = {"tower": "the network below a judge's head", "tokenizer": "the vocabulary of a judge"}
"""Kinds of records and files that are parts of judges."""

Entry = dict[str, str]


def shipped_entries() -> list[Entry]:
    """List the embedded judges: name, kind, description and size, path, and command."""
    root = shipped_folder("rewards", "weights")
    found = []
    for name in shipped_judges():
        path = root / name
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        size = sum(file.stat().st_size for file in files)
        kind, command = _origin(path)
        about = f"{_kind(kind)}; {_size(size)}"
        found.append(
            {"name": name, "kind": kind, "about": about, "path": str(path), "command": command}
        )
    return found


def weightless_entries() -> list[Entry]:
    """List the kinds that are a formula, and so need no file."""
    kinds = [kind for kind, section in KINDS.items() if "checkpoint" not in section.model_fields]
    return [{"name": kind, "about": _about(kind)} for kind in kinds if kind not in BLACK_BOXES]


def outside_entries() -> list[Entry]:
    """List the kinds that are outside this process: your server, program or hosted model."""
    return [{"name": kind, "about": _about(kind)} for kind in BLACK_BOXES]


def other_entries() -> list[Entry]:
    """List the kinds whose files are neither shipped nor published, such as `python`."""
    known = {entry["kind"] for entry in [*shipped_entries(), *published_entries()]}
    known |= {entry["name"] for entry in [*weightless_entries(), *outside_entries()]}
    return [{"name": kind, "about": _about(kind)} for kind in KINDS if kind not in known]


def published_entries() -> list[Entry]:
    """List the published files: name, kind, description with size, and source."""
    text = (shipped_folder("rewards", "core") / "published.json").read_text(encoding="utf-8")
    return [
        {
            "name": record["name"],
            "kind": record["kind"],
            "about": f"{_kind(record['kind'])}; {_record_size(record)}, from {record['repo']}",
        }
        for record in json.loads(text)
    ]


def _origin(path: Path) -> tuple[str, str]:
    """Return the kind of a shipped judge and the command that made it."""
    config = path / "model_config.json"
    if config.is_file():
        return "video_align", str(json.loads(config.read_text(encoding="utf-8")).get("command", ""))
    if path.is_dir():
        return "qwen_critic", safetensors_metadata(path / "model.safetensors").get("command", "")
    metadata = safetensors_metadata(path)
    return metadata.get("kind", ""), metadata.get("command", "")


def _kind(kind: str) -> str:
    return PARTS.get(kind) or f"{kind}: {_about(kind)}"


def _about(kind: str) -> str:
    """Return the first line of the docstring of a kind's section, without the full stop."""
    section = KINDS.get(kind)
    text = (section.__doc__ or "") if section is not None else ""
    return text.partition("\n")[0].rstrip(".")


def _record_size(record: dict[str, Any]) -> str:
    size = record.get("size") or record.get("tensors")
    return "size not recorded" if size is None else _size(size)


def _size(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"

"""What a run was: its recipe, versions, hashes, machine, time, and the command that repeats it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_tuning.errors import TuningError
from reward_tuning.files.json_text import parsed_json
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.report.run_rows import Row, column, number
from reward_tuning.runs.machine import MACHINE


@dataclass(frozen=True)
class Facts:
    """What the last section of the report shows.

    Attributes:
        recipe: recipe.yaml as plain data; empty without the file.
        text: recipe.yaml without its header; empty without the file.
        versions: Name and version of each library.
        hashes: Name and hash of everything that was loaded.
        machine: Name and value of each fact about the machine and the time.
        command: Command that repeats it; empty where none is known.
        missing: What is not recorded, in sentences.
    """

    recipe: Mapping[str, Any]
    text: str
    versions: Sequence[tuple[str, str]]
    hashes: Sequence[tuple[str, str]]
    machine: Sequence[tuple[str, str]]
    command: str
    missing: Sequence[str]


def read_facts(folder: Path, rows: Sequence[Row]) -> Facts:
    """Read recipe.yaml and machine.jsonl of a run folder; a folder of `evaluate` has neither.

    Args:
        folder: Any folder.
        rows: Rows of metrics.jsonl.

    Raises:
        TuningError: recipe.yaml is damaged.
    """
    path = folder / "recipe.yaml"
    if not path.is_file():
        return Facts({}, "", (), (), _machine(folder, rows), "", ())
    try:
        text = path.read_text(encoding="utf-8")
        recipe = read_yaml(text)
    except (OSError, ValueError) as error:
        raise TuningError(f"{path} cannot be read ({error}); restore it") from error
    lines = text.splitlines()
    head = [line[2:] for line in lines if line.startswith("# ")]
    pairs = [(name, value) for name, _, value in (line.rpartition(" ") for line in head) if name]
    machine = _machine(folder, rows)
    missing = [] if (folder / MACHINE).is_file() else ["The machine was not recorded."]
    return Facts(
        recipe if isinstance(recipe, dict) else {},
        "\n".join(line for line in lines if not line.startswith("# ")) + "\n",
        [pair for pair in pairs if not pair[1].startswith("sha256:")],
        [pair for pair in pairs if pair[1].startswith("sha256:")],
        machine,
        f"reward-tuning run {shlex.quote(str(path))} output={shlex.quote(f'{folder}-again')}",
        missing,
    )


def _machine(folder: Path, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return what machine.jsonl says of each start, and the time that the steps took."""
    starts = []
    if (folder / MACHINE).is_file():
        for line in (folder / MACHINE).read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = parsed_json(line)
            except ValueError:
                continue  # half written when the run was killed
            if isinstance(row, dict):
                starts.append(row)
    found = []
    for name, key in (
        ("device", "device"),
        ("processes", "processes"),
        ("processor cores", "cores"),
        ("memory", "memory"),
        ("system", "system"),
        ("Python", "python"),
        ("begun", "begun"),
    ):
        values = list(dict.fromkeys(_value(key, row[key]) for row in starts if key in row))
        if values:
            found.append((name, ", then ".join(values[:4])))
    seconds = sum(v for v in column(rows, "seconds", "step") if v is not None)
    if seconds:
        processes = max((number(row, "processes") or 1 for row in starts), default=1)
        kind = "GPU" if any(row.get("gpu") for row in starts) else "CPU"
        kind = kind if starts else "device"
        text = f"{duration(seconds)} for {len(rows)} steps"
        found.append(("training time", text))
        found.append((f"{kind} hours of training", f"{seconds * processes / 3600:.2g}"))
    return found


def _value(key: str, value: Any) -> str:
    size = number({key: value}, "memory")
    return str(value) if size is None else f"{size / 1e9:.0f} GB"


def duration(seconds: float) -> str:
    """Return a duration for people, such as `1 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"

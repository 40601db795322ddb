"""`reward-tuning ls`: what comes with the package."""

import json
from pathlib import Path
from typing import Annotated

import typer

from reward_tuning.cli.output import print_json, print_table
from reward_tuning.recipe_files import (
    finetune_recipes,
    shipped_folder,
    shipped_judges,
    shipped_recipes,
)

MOST_HEADER = 2**24  # bytes of a safetensors header that are believed


def ls(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """List the shipped recipes, generators, judges and prompt files."""
    from base_model.shipped import WEIGHTS, shipped_checkpoints

    found = {
        "recipes": [
            {"name": recipe.name, "about": recipe.summary, "path": str(recipe.path)}
            for recipe in [*shipped_recipes(), *finetune_recipes()]
        ],
        "generators": [
            {"name": name, "about": _about(WEIGHTS / name), "path": str(WEIGHTS / name)}
            for name in shipped_checkpoints()
        ],
        "judges": [
            {"name": name, "about": _about(judges / name), "path": str(judges / name)}
            for judges in [shipped_folder("rewards", "weights")]
            for name in shipped_judges()
        ],
        "prompts": [
            {
                "name": name,
                "about": f"{_lines(prompts / name)} prompts",
                "path": str(prompts / name),
            }
            for prompts in [shipped_folder("recipes")]
            for name in sorted(p.relative_to(prompts).as_posix() for p in prompts.rglob("*.jsonl"))
        ],
    }
    if as_json:
        print_json(found)
        return
    for title, entries in found.items():
        if entries:
            rows = [(entry["name"], entry["about"]) for entry in entries]
            print_table(title.capitalize(), ("name", "what it is"), rows)
    print(
        "Read a recipe: reward-tuning show NAME. Run it: reward-tuning run NAME, or reward-tuning "
        "finetune NAME for finetune/..."
    )


def _lines(path: Path) -> int:
    return sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def _about(path: Path) -> str:
    """Size of a checkpoint, and what its safetensors metadata says of it."""
    files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files) / 1e6
    metadata = _metadata(files[0]) if files else {}
    told = metadata.get("description") or metadata.get("about") or metadata.get("command") or ""
    return f"{size:.1f} MB" + (f"; {told}" if told else "")


def _metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file: 8 bytes of length, then a JSON header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(MOST_HEADER, path.stat().st_size):
            return {}  # cut off or no safetensors; whoever loads it says so
        header = json.loads(file.read(length))
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata

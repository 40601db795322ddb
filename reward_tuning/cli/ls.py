"""`reward-tuning ls`: list what the package ships."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from reward_tuning.cli.output import print_json, print_table
from reward_tuning.files.safetensors_header import safetensors_metadata
from reward_tuning.judges.listing import (
    other_entries,
    outside_entries,
    published_entries,
    shipped_entries,
    weightless_entries,
)
from reward_tuning.schema.locate import (
    ADAPTERS,
    distil_recipes,
    finetune_recipes,
    shipped_adapters,
    shipped_folder,
    shipped_recipes,
)

TITLES = {
    "recipes": "Recipes",
    "generators": "Generators",
    "adapters": "LoRAs, for generator.adapter and --lora",
    "judges": "Judges in the package",
    "judges_without_weights": "Judges without weights, by kind",
    "published_judges": "Published judges, by the name used in recipes",
    "other_judges": "Judges that need a file of yours, by kind",
    "outside_judges": "Judges outside this process, by kind",
    "prompts": "Prompts",
}


def ls(
    as_json: Annotated[bool, typer.Option("--json", help="Print the lists as JSON")] = False,
) -> None:
    """List the shipped recipes, generators, judges and prompt files, and the published judges."""
    from base_model.files.shipped import WEIGHTS, shipped_checkpoints

    found: dict[str, Sequence[Mapping[str, str]]] = {
        "recipes": [
            {"name": recipe.name, "about": recipe.summary, "path": str(recipe.path)}
            for recipe in [*shipped_recipes(), *finetune_recipes(), *distil_recipes()]
        ],
        "generators": [
            {"name": name, "about": _about(WEIGHTS / name), "path": str(WEIGHTS / name)}
            for name in shipped_checkpoints()
        ],
        "adapters": [
            {"name": name, "about": _about(path), "path": str(path)}
            for name in shipped_adapters()
            for path in [ADAPTERS / f"{name}.safetensors"]
        ],
        "judges": shipped_entries(),
        "judges_without_weights": weightless_entries(),
        "published_judges": published_entries(),
        "other_judges": other_entries(),
        "outside_judges": outside_entries(),
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
            print_table(TITLES[title], ("name", "about"), rows)
    print(
        "Read a recipe: reward-tuning show NAME\nRun it: reward-tuning run NAME; for finetune/... "
        "and distil/...: reward-tuning finetune NAME, reward-tuning distil NAME"
    )


def _lines(path: Path) -> int:
    return sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def _about(path: Path) -> str:
    """Return the size of a checkpoint and the description in its safetensors metadata."""
    files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files) / 1e6
    metadata = safetensors_metadata(files[0]) if files else {}
    text = metadata.get("description") or metadata.get("about") or metadata.get("command")
    text = text or metadata.get("modelspec.title") or ""
    return f"{size:.1f} MB" + (f"; {text}" if text else "")

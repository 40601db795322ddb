"""What the guards found on the base, kept in the run folder: it is measured once a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from base_model.files.reproducible import safetensors_bytes
from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import atomic_write
from reward_tuning.files.json_text import parsed_json
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.guard_evaluation import GuardScores


def settings(recipe: Recipe) -> dict[str, Any]:
    """Return the keys that decide what is measured; a resume may change them."""
    guards = recipe.guards
    return {
        "prompts": guards.prompts,
        "steps": guards.steps,
        "diversity": None if guards.diversity.action == "off" else guards.diversity.prompts,
        "drift": None if guards.drift.action == "off" else guards.drift.prompts,
    }


def save_base(path: Path, found: GuardScores, recipe: Recipe) -> None:
    """Write the scores of the base.

    Raises:
        TuningError: The disk is full.
    """
    tensors = {
        **{
            f"values/{name}": torch.tensor(of, dtype=torch.float64)
            for name, of in found.values.items()
        },
        **{f"latents/{index}": latents for index, latents in found.latents.items()},
        "diversity": torch.tensor(found.diversity, dtype=torch.float64),
    }
    atomic_write(path, safetensors_bytes(tensors, {"settings": json.dumps(settings(recipe))}))


def check_comparable(path: Path, rows: Sequence[Mapping[str, Any]], recipe: Recipe) -> None:
    """Check that the evaluations of a resumed run can be compared with those to come.

    Args:
        path: File of `save_base`.
        rows: Rows of guards.jsonl so far.
        recipe: Recipe of the resumed run.

    Raises:
        TuningError: guards.prompts or guards.steps has changed.
    """
    if not rows:
        return
    kept = _settings_of(path) or {}
    for key in ("prompts", "steps"):
        now = settings(recipe)[key]
        if kept.get(key, now) != now:
            raise TuningError(
                f"guards.{key}: was {kept[key]}, is {now}; the run has evaluated "
                f"{len(rows)} checkpoints with the old value. Restore it, or turn the guards off "
                "with guards.every=0"
            )


def _settings_of(path: Path) -> dict[str, Any] | None:
    try:
        with safe_open(path, "pt") as file:
            found: dict[str, Any] = parsed_json(file.metadata()["settings"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return found


def read_base(path: Path, recipe: Recipe) -> GuardScores | None:
    """Read the scores of the base; None where they must be measured (again).

    That is where there is no file, its header is damaged, or it was measured with other keys.
    """
    if _settings_of(path) != settings(recipe):
        return None
    found = load_file(path)

    def named(kind: str) -> dict[str, torch.Tensor]:
        return {
            name.removeprefix(kind): tensor
            for name, tensor in found.items()
            if name.startswith(kind)
        }

    return GuardScores(
        {name: of.tolist() for name, of in named("values/").items()},
        found["diversity"].tolist(),
        {int(index): latents for index, latents in sorted(named("latents/").items())},
    )

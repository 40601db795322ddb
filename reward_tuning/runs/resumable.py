"""Everything that decides the numbers of a run, and must be the same when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reward_tuning.section import Section

MAY_CHANGE = (
    "steps",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "sample_every",
    "max_bad_steps",
)
"""Keys of `train` that a resume may change, because they change no step that both runs make.

`steps` only where the learning rate does not depend on it."""
SHOWN = ("clips", "strengths", "strength_prompts")
"""Keys of `evaluation` that a resume may change: what is shown besides base and tuned."""
ASKING = ("url", "key_env", "timeout", "retries", "parallel", "max_mb")
"""Keys of a judge that a resume may change: where a server is now, and how it is asked."""
MEMORY = {
    "train": (
        "keep_graphs",
        "keep_graphs_memory",
        "gradient_checkpointing",
        "decoder_checkpointing",
        "offload_activations",
    ),
    "generator": ("memory",),
}
"""Keys by section that a resume may change: where things are kept and what is computed again.

They change no bit, but for two that change the rounding: `keep_graphs`, and a move of blocks that a
`generator.adapter` is merged into where they stay (`rounding_changes`)."""
PACKAGES = ("reward-tuning", "torch", "diffusers", "transformers", "peft", "open_clip_torch")
"""Libraries whose version may change a number."""


def comparable(recipe: Section) -> dict[str, Any]:
    """Return the values that must not change between run and resume.

    That is everything but the folder, which may be moved, the guards, which only decide how long
    to go on, the trackers, `MAY_CHANGE`, `MEMORY`, `SHOWN` and `ASKING`.
    """
    return without_free(recipe.model_dump(mode="json", exclude={"output", "guards", "tracking"}))


def without_free(data: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe without those that may change.

    Args:
        data: Values of a recipe, or those that an older version has kept as `comparable`.
    """
    free: tuple[str, ...] = MAY_CHANGE
    if data["train"]["lr_schedule"] != "constant":
        free = tuple(key for key in free if key != "steps")
    data["train"] = {k: v for k, v in data["train"].items() if k not in free}
    for section, keys in MEMORY.items():
        data = {**data, section: {k: v for k, v in data[section].items() if k not in keys}}
    if "evaluation" in data:
        data["evaluation"] = {k: v for k, v in data["evaluation"].items() if k not in SHOWN}
        _free_asking(data["evaluation"], "held_out_rewards")
    _free_asking(data, "rewards")
    return data


def rounding_changes(recipe: Mapping[str, Any], key: str) -> bool:
    """Return whether a change of a key of `MEMORY` gives the same numbers to rounding only.

    Args:
        recipe: Values of the recipe.
        key: As `section.key`.
    """
    generator = recipe["generator"]
    merged = generator.get("adapter") is not None and generator["dtype"] == "float32"
    return "keep_graphs" in key or (key == "generator.memory" and merged)


def with_new_keys(kept: dict[str, Any], given: Any, chosen: Any) -> dict[str, Any]:
    """Return the values that a run has kept, with keys that came later at their defaults.

    Args:
        kept: Values of a recipe, as an older version may have written them.
        given: All values of the recipe now.
        chosen: Those of them that are not defaults.
    """
    found = dict(kept)
    for key, value in given.items():
        of_key = chosen.get(key) if isinstance(chosen, dict) else None
        if key not in kept:
            if of_key is None:
                found[key] = value
        elif isinstance(value, dict) and isinstance(kept[key], dict):
            found[key] = with_new_keys(kept[key], value, of_key)
        elif isinstance(value, list) and isinstance(kept[key], list):
            found[key] = [
                with_new_keys(*both) if all(isinstance(one, dict) for one in both) else both[0]
                for both in _abreast(kept[key], value, of_key)
            ]
    return found


def _abreast(kept: list[Any], given: list[Any], chosen: Any) -> list[tuple[Any, Any, Any]]:
    """Return the items of three lists side by side; kept ones without a counterpart stay alone."""
    more = [chosen[i] if isinstance(chosen, list) else {} for i in range(len(given))]
    rest = [(one, None, None) for one in kept[len(given) :]]
    return [*zip(kept, given, more, strict=False), *rest]


def memory_keys(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the values of `MEMORY` in a recipe, as `section.key`."""
    return {
        f"{section}.{key}": recipe[section][key]
        for section, keys in MEMORY.items()
        for key in keys
        if key in recipe[section]
    }


def _free_asking(section: dict[str, Any], key: str) -> None:
    """Leave `ASKING` out of the judges under a key."""
    if key in section:
        section[key] = [
            {k: v for k, v in judge.items() if k not in ASKING} for judge in section[key]
        ]


def recipe_differences(kept: Any, given: Any, path: str = "") -> list[str]:
    """List the keys whose values differ, as `key: was A, is B`."""
    if isinstance(kept, dict) and isinstance(given, dict):
        lines = []
        for key in dict.fromkeys([*kept, *given]):
            where = f"{path}.{key}" if path else str(key)
            lines += recipe_differences(kept.get(key), given.get(key), where)
        return lines
    if isinstance(kept, list) and isinstance(given, list) and len(kept) == len(given):
        lines = []
        for i, (a, b) in enumerate(zip(kept, given, strict=True)):
            lines += recipe_differences(a, b, f"{path}.{i}")
        return lines
    return [] if kept == given else [f"{path}: was {kept}, is {given}"]


def changed_recipe(place: Path, differences: list[str]) -> str:
    """Write the refusal to resume with another recipe or other content."""
    lines = "\n".join(f"  {line}" for line in differences)
    return (
        f"{place}: the recipe has changed since the run began, so it would not end as it began:\n"
        f"{lines}\nRestore the old values and resume, or start a new run with another output"
    )


def versions() -> dict[str, str]:
    """Return the installed versions of `PACKAGES`."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found

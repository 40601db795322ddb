"""Find the adapter of a path, its generator and its origin, without loading weights."""

import json
from collections.abc import Callable
from pathlib import Path

from base_model.files.hub import HUB_ID
from base_model.files.shipped import shipped_checkpoints
from reward_tuning.errors import TuningError
from reward_tuning.evidence.any_recipe import load_any_recipe
from reward_tuning.files.json_text import parsed_json
from reward_tuning.runs.status import unfinished_text
from reward_tuning.sampling.generator_parts import generator_checkpoint
from reward_tuning.schema.locate import adapter_place, shipped_adapters


def adapter_path(source: Path) -> Path:
    """Return the adapter of a path: a shipped one, the `lora` folder of a run, or the path itself.

    Raises:
        TuningError: The path does not exist, or its run has not exported an adapter yet.
    """
    source = adapter_place(str(source))
    if not source.exists():
        names = ", ".join(shipped_adapters())
        raise TuningError(
            f"no LoRA at {source}; give a run folder, a LoRA file or a LoRA folder, or a shipped "
            f"one ({names})"
        )
    if (source / "recipe.yaml").is_file():
        if (source / "generator").is_dir():
            raise TuningError(
                f"{source} trained all weights, so there is no LoRA; its checkpoint is "
                f"{source / 'generator'}"
            )
        if not (source / "lora").is_dir():
            raise TuningError(f"{source} is a run without a lora folder: {unfinished_text(source)}")
        return source / "lora"
    return source


def checkpoint_of(source: Path) -> str | None:
    """Return the generator an adapter was trained on; None if it is not inside a run folder."""
    run = run_of(source)
    if run is None:
        return None
    recipe = load_any_recipe(run / "recipe.yaml", check_files=False)
    return generator_checkpoint(recipe.generator)


def base_in_header(source: Path) -> str | None:
    """Return the generator that the header of an adapter names, if it is shipped or a hub id.

    Names of folders are not followed: a header keeps only their last part.

    Raises:
        TuningError: The adapter's file is damaged.
    """
    from reward_tuning.lora.formats.adapter_files import find_adapter, header_of
    from reward_tuning.lora.metadata import BASE

    source = adapter_place(str(source))
    if not source.exists():
        return None
    try:
        named = parsed_json(header_of(find_adapter(source)).get(BASE, "null"))
    except json.JSONDecodeError:
        return None  # of another tool
    name = named.get("checkpoint") if isinstance(named, dict) else None
    if not isinstance(name, str):
        return None
    return name if name in shipped_checkpoints() or HUB_ID.fullmatch(name) else None


def run_of(source: Path) -> Path | None:
    """Return the run folder that a path is in; None if it is in none."""
    folders = (source, *source.resolve().parents[:3])
    return next((one for one in folders if (one / "recipe.yaml").is_file()), None)


def origin_of(source: Path, warn: Callable[[str], None]) -> dict[str, str]:
    """Return the metadata of an adapter: from its file, its run and the run's evaluation.

    Args:
        source: Run folder, or adapter.
        warn: Called with a warning where the run's recipe cannot be read, such as that of another
            version: the metadata then lack it.

    Raises:
        TuningError: There is no adapter, or its file or the evaluation is damaged.
    """
    from reward_tuning.lora.formats.adapter_files import find_adapter, header_of
    from reward_tuning.lora.metadata import carried, evaluation_metadata, training_metadata
    from reward_tuning.runs.folder import RunFolder

    path = adapter_path(source)
    found = carried(header_of(find_adapter(path)))
    run = run_of(source)
    inside = () if run is None else path.resolve().relative_to(run.resolve()).parts
    if run is None or not inside or inside[0] not in ("lora", "checkpoints"):
        return found  # a LoRA from elsewhere
    folder = RunFolder(run)
    try:
        recipe = load_any_recipe(run / "recipe.yaml", check_files=False)
    except TuningError as error:
        warn(f"warning: the metadata do not describe the run: {error}")
    else:
        found = training_metadata(recipe, folder.initial_fingerprints()) | found
    if inside[0] == "checkpoints":
        step = inside[1].removeprefix("step-") if len(inside) > 1 else ""
        return found | ({"ss_steps": str(int(step))} if step.isdecimal() else {})
    return found | evaluation_metadata(folder.read_evaluation() or {})

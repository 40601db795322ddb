"""Find the adapter of a path and the generator it belongs to, without loading weights."""

from pathlib import Path

from reward_tuning.errors import TuningError
from reward_tuning.finetune.recipe import load_any_recipe
from reward_tuning.sampling.generator_parts import generator_checkpoint


def adapter_path(source: Path) -> Path:
    """Return the adapter of a path: the `lora` folder of a run, else the path itself.

    Raises:
        TuningError: The path does not exist, or its run has not exported an adapter yet.
    """
    if not source.exists():
        raise TuningError(f"no LoRA at {source}; give a run folder, a LoRA file or a LoRA folder")
    if (source / "recipe.yaml").is_file():
        if not (source / "lora").is_dir():
            raise TuningError(
                f"{source} is a run without a lora folder: it is not finished; resume it with "
                f"`reward-tuning resume {source}`"
            )
        return source / "lora"
    return source


def checkpoint_of(source: Path) -> str | None:
    """Return the generator an adapter was trained on; None if it is not inside a run folder."""
    for folder in (source, *source.resolve().parents[:3]):
        if (folder / "recipe.yaml").is_file():
            recipe = load_any_recipe(folder / "recipe.yaml", check_files=False)
            return generator_checkpoint(recipe.generator)
    return None

"""Which adapter and which model a person means, without loading the model's weights."""

from pathlib import Path

from reward_tuning.errors import TuningError
from reward_tuning.finetune.recipe import load_any_recipe
from reward_tuning.sampling.generator_parts import generator_checkpoint


def adapter_path(source: Path) -> Path:
    """Find the adapter: the `lora` folder of a run, else the path as given.

    Raises:
        TuningError: There is nothing, or a run that has exported none yet.
    """
    if not source.exists():
        raise TuningError(f"no LoRA at {source}; give a run folder, a LoRA's file or its folder")
    if (source / "recipe.yaml").is_file():
        if not (source / "lora").is_dir():
            raise TuningError(
                f"{source} is a run without a lora folder: it is not finished; go on with it by "
                f"`reward-tuning resume {source}`"
            )
        return source / "lora"
    return source


def checkpoint_of(source: Path) -> str | None:
    """Read which generator an adapter was trained on from the run folder it lies in, if it does."""
    for folder in (source, *source.resolve().parents[:3]):
        if (folder / "recipe.yaml").is_file():
            recipe = load_any_recipe(folder / "recipe.yaml", check_files=False)
            return generator_checkpoint(recipe.generator)
    return None

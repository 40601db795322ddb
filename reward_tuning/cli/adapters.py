"""Which adapter and which model a person means, without loading the model's weights."""

from pathlib import Path
from typing import TYPE_CHECKING

from reward_tuning.errors import TuningError
from reward_tuning.finetune.recipe import load_any_recipe
from reward_tuning.generator_parts import generator_checkpoint

if TYPE_CHECKING:
    from torch import nn


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


def transformer_shapes(checkpoint: str) -> "nn.Module":
    """Build a generator's transformer on the meta device: names and shapes, no weights.

    Raises:
        GeneratorError: The checkpoint is not there, is no EasyAnimateV5.1, or its configuration
            cannot be fetched.
    """
    from diffusers import EasyAnimateTransformer3DModel

    from base_model.checkpoint import empty_model
    from base_model.hub import download
    from base_model.model_configs import transformer_arguments
    from base_model.shipped import resolve_checkpoint

    found = resolve_checkpoint(checkpoint)
    if not isinstance(found, Path):
        found = download(found, ["transformer/config.json"])
    part = found / "transformer"
    model: nn.Module = empty_model(
        EasyAnimateTransformer3DModel, transformer_arguments(part, EasyAnimateTransformer3DModel)
    )
    return model

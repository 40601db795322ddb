"""Export the result of a fine-tuning: a LoRA in every format, or a whole checkpoint."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from base_model.files.reproducible import save_reproducibly
from base_model.loading.config_conversion import model_index
from base_model.loading.delta import OTHER_PARTS, WEIGHT_FILE
from reward_tuning.files.atomic_write import not_written, temporary_path
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.lora.export import export_every_format
from reward_tuning.lora.metadata import training_metadata
from reward_tuning.runs.folder import RunFolder
from reward_tuning.sampling.generator_parts import generator_folder


def export_trained(
    recipe: FinetuneRecipe,
    transformer: Any,
    weights: Mapping[str, Tensor],
    folder: RunFolder,
    fingerprints: Mapping[str, str],
) -> None:
    """Write `lora/`, or `generator/` where every weight was trained.

    Args:
        recipe: Recipe of the run.
        transformer: Transformer whose configuration is exported.
        weights: Tensors to export, by name.
        folder: Folder of the run.
        fingerprints: Hashes of the run's checkpoints, for the metadata of the LoRA.

    Raises:
        TuningError: The disk is full.
    """
    if recipe.lora is not None:
        about = training_metadata(recipe, fingerprints)
        export_every_format(recipe.lora, folder.lora, weights, about)
        return
    target = folder.root / "generator"
    temporary = temporary_path(target)
    base = generator_folder(recipe.generator, text_encoder=False)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        write_checkpoint(temporary, transformer, weights, base)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    except OSError as error:
        raise not_written(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_checkpoint(
    target: Path, transformer: Any, weights: Mapping[str, Tensor], base: Path
) -> None:
    """Write a whole checkpoint in the diffusers layout: this transformer, the base's other parts.

    The other parts are hard links to the base's files where both are on one file system, else
    copies: the text encoder alone may be 16 GB.

    Args:
        target: Folder to create.
        transformer: Transformer whose configuration is written.
        weights: Tensors by the transformer's names.
        base: Folder of the checkpoint that was trained.
    """
    part = target / "transformer"
    part.mkdir(parents=True)
    transformer.save_config(part)
    state = {name: tensor.to(torch.float32).cpu() for name, tensor in weights.items()}
    buffers = {name: tensor.cpu() for name, tensor in transformer.named_buffers()}
    kept = transformer.state_dict().keys()
    state |= {name: tensor for name, tensor in buffers.items() if name in kept}
    save_reproducibly(part / WEIGHT_FILE, state, {"format": "pt"})
    (target / "model_index.json").write_text(model_index(transformer.config.in_channels))
    for name in OTHER_PARTS:
        if (base / name).is_dir():
            shutil.copytree(base / name, target / name, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    real = Path(source).resolve()  # the hub's cache holds symbolic links
    try:
        os.link(real, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(real, target)

"""Everything that `finetune` refuses before it loads anything large."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from base_model.memory.quantise import require as require_quantisation
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.training_set import TrainingSet, find_training_set
from reward_tuning.lora.frozen import check_frozen
from reward_tuning.lora.init import check_start_in
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs.findings import Findings
from reward_tuning.runs.optimiser import require_optimiser
from reward_tuning.runs.tracker_packages import require_trackers
from reward_tuning.sampling.devices import require_device
from reward_tuning.sampling.generator_parts import folder_if_here, generator_kind


@dataclass
class FinetuneFindings(Findings):
    """Everything that `finetune` would refuse, and what it needs to continue.

    Attributes:
        channels: Input channels of the transformer to train; None where they are not known yet.
        training_set: The clips; None where they cannot be used.
    """

    channels: int | None = None
    training_set: TrainingSet | None = None


def check_finetune(
    recipe: FinetuneRecipe,
    device: torch.device,
    progress: ProgressFn = silent,
    *,
    fetch: bool = False,
) -> FinetuneFindings:
    """Check everything that `finetune` refuses before it loads.

    Args:
        recipe: The resolved recipe.
        device: Device that would train: not every one can quantise.
        progress: Receives events while files are read.
        fetch: Fetch the configuration of a generator that is not on the disk, if nothing else is
            wrong; without it, control files of such a generator are not checked.
    """
    found = FinetuneFindings(channels=recipe.generator.channels)
    with found.collect():
        if recipe.generator.quantise is not None:
            require_quantisation(recipe.generator.quantise, device)
    with found.collect():
        require_optimiser(recipe.train, device)
    with found.collect():
        require_device("generator.text_encoder_device", recipe.generator.text_encoder_device)
    with found.collect():
        require_trackers(recipe.tracking)
    root = None
    with found.collect("generator.checkpoint"):
        root = folder_if_here(recipe.generator)
    with found.collect("generator.adapter"):
        check_frozen(recipe.generator, root)
    with found.collect("lora.init"):
        if note := check_start_in(recipe.lora, root):
            progress(ProgressEvent("loading", note=note))
    with found.collect("generator.checkpoint"):
        if found.channels is None and (root is not None or (fetch and not found.mistakes)):
            found.channels = generator_kind(recipe.generator).channels
    # Last, for it decodes every clip: hours for a large set.
    with found.collect():
        found.training_set = find_training_set(recipe, found.channels, progress)
    return found

"""Everything that `distil` refuses before it loads anything large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from base_model.core.kinds import Kind
from base_model.memory.quantise import require as require_quantisation
from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.errors import TuningError
from reward_tuning.inputs.prompts import Prompt, PromptStream, read_prompts
from reward_tuning.inputs.run_conditions import check_conditions
from reward_tuning.judges.missing import missing_judges
from reward_tuning.lora.frozen import check_frozen
from reward_tuning.lora.init import check_start_in
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs.findings import Findings
from reward_tuning.runs.held_out import shared_prompts
from reward_tuning.runs.optimiser import require_optimiser
from reward_tuning.runs.tracker_packages import require_trackers
from reward_tuning.sampling.devices import require_device
from reward_tuning.sampling.generator_parts import folder_if_here, generator_kind
from reward_tuning.schema.locate import prompt_path
from rewards.errors import RewardError


@dataclass
class DistilFindings(Findings):
    """Everything that `distil` would refuse, and the prompts.

    Attributes:
        stream: Training prompts; None where they cannot be used.
        held_out: Prompts of the evaluation; empty where they cannot be used.
    """

    refusals = (*Findings.refusals, RewardError)

    stream: PromptStream | None = None
    held_out: Sequence[Prompt] = field(default_factory=tuple)


def check_distil(
    recipe: DistilRecipe, device: torch.device, progress: ProgressFn = silent
) -> DistilFindings:
    """Check everything that `distil` refuses before it loads.

    Args:
        recipe: The resolved recipe.
        device: Device that would train: not every one can quantise.
        progress: Receives notes, and events while files are read.
    """
    found = DistilFindings()
    with found.collect("prompts.train"):
        prompts = read_prompts(prompt_path(recipe.prompts.train))
        found.stream = PromptStream(prompts, recipe.seed)
    with found.collect("prompts.held_out"):
        found.held_out = _held_out_prompts(recipe)
    if found.stream is not None and found.held_out:
        with found.collect():
            if note := shared_prompts(found.stream.prompts, found.held_out):
                progress(ProgressEvent("loading", note=note))
    if recipe.generator.quantise is not None:
        with found.collect():
            require_quantisation(recipe.generator.quantise, device)
    with found.collect():
        require_optimiser(recipe.train, device)
    with found.collect():
        require_device("generator.text_encoder_device", recipe.generator.text_encoder_device)
    with found.collect():
        require_device("generator.vae_device", recipe.generator.vae_device)
    for judge in recipe.evaluation.held_out_rewards:
        with found.collect():
            require_device(f"device of the judge {judge.label}", judge.own_device)
    with found.collect():
        require_trackers(recipe.tracking)
    root, kind = None, None
    with found.collect("generator.checkpoint"):
        root = folder_if_here(recipe.generator)
        if root is not None:
            kind = generator_kind(recipe.generator)
    with found.collect("generator.adapter"):
        check_frozen(recipe.generator, root)
    with found.collect("lora.init"):
        if note := check_start_in(recipe.lora, root):
            progress(ProgressEvent("loading", note=note))
    _check_conditions(recipe, kind, found, progress)
    found.missing += missing_judges(recipe.evaluation.held_out_rewards)
    return found


def _held_out_prompts(recipe: DistilRecipe) -> list[Prompt]:
    found, wanted = read_prompts(prompt_path(recipe.prompts.held_out)), recipe.evaluation.prompts
    if not 2 <= wanted <= len(found):
        raise TuningError(
            f"evaluation.prompts: got {wanted}; allowed: 2 to {len(found)}, the number in "
            "prompts.held_out"
        )
    return found[:wanted]


def _check_conditions(
    recipe: DistilRecipe, kind: Kind | None, found: DistilFindings, progress: ProgressFn
) -> None:
    sets: dict[str, Sequence[Prompt]] = {"prompts.held_out": found.held_out}
    if found.stream is not None:
        sets["prompts.train"] = found.stream.prompts
    for key, prompts in sets.items():
        with found.collect(key):
            check_conditions(prompts, recipe.size, strength=1.0, kind=kind, progress=progress)

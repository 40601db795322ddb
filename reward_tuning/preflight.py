"""Everything wrong with a recipe that can be found before anything large is loaded or fetched.

`validate` prints these findings, and `run` refuses to begin while there are any. Nothing is
downloaded, so a generator that is not on the disk yet is not checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from base_model.errors import GeneratorError
from base_model.quantise import require as require_quantisation
from reward_tuning.errors import TuningError
from reward_tuning.finetune.parts import look_at_clips
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.generator_parts import (
    folder_if_here,
    generator_folder,
    generator_kind,
    is_here,
)
from reward_tuning.held_out import shared_prompts
from reward_tuning.judge_files import missing_judges
from reward_tuning.lora_start import check_start_in
from reward_tuning.optimisers import require_optimiser
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.prompts import Prompt, PromptStream, read_prompts
from reward_tuning.recipe import Recipe
from reward_tuning.recipe_files import prompt_path
from reward_tuning.replay_sources import check_sources, replay_sources
from reward_tuning.run_conditions import check_conditions
from reward_tuning.run_draws import training_sigmas
from reward_tuning.run_folder import RunFolder
from reward_tuning.run_parts import checks_before_loading, first_held_out
from reward_tuning.sections import LoraSection
from reward_tuning.shared_encoder import encoder_folder
from reward_tuning.whole_file import check_place
from rewards.errors import RewardError


@dataclass
class Findings:
    """What a verb would refuse.

    Attributes:
        mistakes: Of the recipe, its files or this machine, a text each.
        missing: Judges that must be fetched first, each with the command.
    """

    mistakes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @contextmanager
    def told(self, key: str = "") -> Iterator[None]:
        """Keep what is refused within the context, and go on."""
        try:
            yield
        except (TuningError, GeneratorError, RewardError) as error:
            text = f"{key}: {error}" if key and not str(error).startswith(key) else str(error)
            if text not in self.mistakes:
                self.mistakes.append(text)

    def refuse(self) -> None:
        """Refuse to begin.

        Raises:
            TuningError: With everything that was found.
        """
        if found := [*self.mistakes, *self.missing]:
            raise TuningError("\n".join(found))


def check_run(recipe: Recipe, device: torch.device, progress: ProgressFn = silent) -> Findings:
    """Look at everything that `run` refuses before it loads.

    Args:
        recipe: Resolved.
        device: Where it would run: not every device can quantise or compile.
        progress: Told while files are read.

    Returns:
        What is wrong.
    """
    found = Findings()
    sampling = recipe.sampling
    size = (sampling.frames, sampling.height, sampling.width)
    prompts: dict[str, list[Prompt]] = {}
    for key, name in (
        ("prompts.train", recipe.prompts.train),
        ("prompts.held_out", recipe.prompts.held_out),
    ):
        with found.told(key):
            prompts[key] = read_prompts(prompt_path(name))
    if "prompts.held_out" in prompts:
        with found.told():
            prompts["prompts.held_out"] = first_held_out(prompts["prompts.held_out"], recipe)
    if len(prompts) == 2:
        with found.told():
            shared_prompts(prompts["prompts.train"], prompts["prompts.held_out"])
    here = is_here(recipe.generator)
    kind = root = None
    with found.told("generator.checkpoint"):
        if here:
            root = generator_folder(recipe.generator, text_encoder=False)
            kind = generator_kind(recipe.generator)
    for key, asked in prompts.items():
        with found.told(key):
            check_conditions(asked, size, strength=sampling.strength, kind=kind, progress=progress)
    with found.told():
        for check in checks_before_loading(recipe, training_sigmas(recipe), device):
            with found.told():
                check()
    if "prompts.train" in prompts:
        with found.told("train.replay"):
            sources = replay_sources(recipe, PromptStream(prompts["prompts.train"], recipe.seed))
            if recipe.train.replay is not None and recipe.train.replay.source != "base":
                check_sources(Path(recipe.train.replay.source), sources, size)
    _check_lora(found, recipe.lora, root, progress)
    judges = [*recipe.rewards, *recipe.evaluation.held_out_rewards]
    if here and any(judge.of_generator for judge in judges):
        with found.told("generator.checkpoint"):
            encoder_folder(recipe)
    found.missing += missing_judges(judges)
    return found


def check_finetune(
    recipe: FinetuneRecipe, device: torch.device, progress: ProgressFn = silent
) -> Findings:
    """Look at everything that `finetune` refuses before it loads; see `check_run`."""
    found = Findings()
    with found.told():
        if recipe.generator.quantise is not None:
            require_quantisation(recipe.generator.quantise, device)
    with found.told():
        require_optimiser(recipe.train, device)
    channels: int | None = recipe.generator.channels
    root = None
    with found.told("generator.checkpoint"):
        root = folder_if_here(recipe.generator)
        if root is not None:
            channels = channels or generator_kind(recipe.generator).channels
    _check_lora(found, recipe.lora, root, progress)
    with found.told():
        look_at_clips(recipe, channels, progress)
    return found


def check_output(folder: str) -> list[str]:
    """What stands against a run in this folder, which says nothing against its recipe."""
    found = Findings()
    with found.told("output"):
        RunFolder(folder).refuse_a_second_run()
    with found.told("output"):
        check_place(Path(folder))
    return found.mistakes


def _check_lora(
    found: Findings, lora: LoraSection | None, root: Path | None, progress: ProgressFn
) -> None:
    """Read the LoRA that a run starts from; held against the generator where that is here."""
    with found.told("lora.init"):
        if note := check_start_in(lora, root):
            progress(ProgressEvent("loading", note=note))

"""Everything wrong with a recipe that can be found before anything large is loaded or fetched.

`validate` prints these findings, and `run` refuses to begin while there are any. Nothing is
downloaded, so a generator that is not on the disk yet is not checked.
"""

from __future__ import annotations

from pathlib import Path

import torch

from reward_tuning.inputs.prompts import Prompt, PromptStream, read_prompts
from reward_tuning.inputs.run_conditions import check_conditions
from reward_tuning.judges.missing import missing_judges
from reward_tuning.judges.shared_encoder import encoder_folder
from reward_tuning.progress import ProgressFn, silent
from reward_tuning.runs.findings import Findings, check_lora
from reward_tuning.runs.held_out import shared_prompts
from reward_tuning.sampling.generator_parts import (
    generator_folder,
    generator_kind,
    is_here,
)
from reward_tuning.schema.locate import prompt_path
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.parts import checks_before_loading, first_held_out
from reward_tuning.tuning.replay_sources import check_sources, replay_sources
from reward_tuning.tuning.sigma_tables import training_sigmas


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
    check_lora(found, recipe.lora, root, progress)
    judges = [*recipe.rewards, *recipe.evaluation.held_out_rewards]
    if here and any(judge.of_generator for judge in judges):
        with found.told("generator.checkpoint"):
            encoder_folder(recipe)
    found.missing += missing_judges(judges)
    return found

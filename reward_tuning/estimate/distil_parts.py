"""The parts of a distillation with weights that nobody trained."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from base_model.sampling.guidance import Guidance
from reward_tuning.distil.parts import DistilParts
from reward_tuning.distil.phases import phases
from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.estimate.random_parts import random_generator, random_states
from reward_tuning.estimate.shapes import Shape
from reward_tuning.estimate.stand_in_judges import is_known, judges_for_shape
from reward_tuning.inputs.prompts import Prompt, PromptStream
from reward_tuning.lora.init import attach_adapter
from reward_tuning.runs.training_state import trained_adapter
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.seeds import derive_seed

PROMPT = "a red ball"


def random_distil_parts(recipe: DistilRecipe, shape: Shape, device: torch.device) -> DistilParts:
    """Return what a step of a distillation works with, without any file.

    Judges whose shapes are not known are left out.

    Args:
        recipe: Resolved.
        shape: Shapes of the networks.
        device: Device of the step; `meta` for shapes without values.
    """
    known = [one for one in recipe.evaluation.held_out_rewards if is_known(one, shape)]
    judges = judges_for_shape(known, shape, recipe.student.frames, device)
    generator = random_generator(recipe.generator, shape, device)
    parameters = attach_adapter(
        generator.transformer, recipe.lora, seed=derive_seed(recipe.seed, "adapter")
    )
    if recipe.train.gradient_checkpointing:
        generator.transformer.enable_gradient_checkpointing()
    prompt, negative = Prompt(PROMPT, PROMPT), recipe.student.negative_prompt
    teacher = ClipSampler(
        generator,
        random_states([PROMPT, negative], shape),
        negative,
        Guidance(recipe.teacher.guidance_scale, recipe.teacher.guidance_rescale),
        recipe.size,
    )
    return DistilParts(
        teacher,
        trained_adapter(generator.transformer, parameters),
        phases(recipe.student.steps, recipe.teacher.steps_per_phase),
        PromptStream([prompt], recipe.seed),
        [prompt],
        judges,
        {},
        nullcontext,
    )

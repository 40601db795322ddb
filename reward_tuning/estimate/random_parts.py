"""The parts of a recipe's optimiser step with weights that nobody trained, at any size, anywhere.

Nothing is downloaded. On the meta device the weights have shapes and no
values; elsewhere they are random, small enough for finite velocities.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKLMagvit, EasyAnimateTransformer3DModel
from torch import Tensor

from base_model.core.family import FAMILY
from base_model.generator import Generator
from base_model.loading.checkpoint import empty_model
from base_model.loading.model_configs import transformer_arguments_of, vae_arguments_of
from base_model.memory.activation_offload import offload_activations
from base_model.memory.block_offload import stream_blocks
from base_model.memory.modes import MODES
from base_model.memory.quantise import quantised, require
from base_model.memory.resting import Resting, block_home
from base_model.networks.small_decoder import SmallDecoder, SmallDecoderConfig
from reward_tuning.errors import TuningError
from reward_tuning.estimate.random_weights import RandomWeights, fill
from reward_tuning.estimate.shapes import Shape
from reward_tuning.estimate.stand_in_judges import formula_judge, judges_for_shape
from reward_tuning.inputs.prompts import Prompt, PromptStream
from reward_tuning.judges.offload import judge_modules, split_offload
from reward_tuning.lora.init import attach_adapter
from reward_tuning.progress import silent
from reward_tuning.runs.training_state import trained_adapter
from reward_tuning.sampling.compilation import compile_blocks
from reward_tuning.schema.recipe import Recipe
from reward_tuning.schema.sections import GeneratorSection
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.group import group_of
from reward_tuning.tuning.parts import RunParts, clip_sampler, step_options
from reward_tuning.tuning.sigma_tables import training_sigmas
from reward_tuning.tuning.small_decoding import wants_small_decoder


def random_parts(
    recipe: Recipe, shape: Shape, device: torch.device, prompts: Sequence[str] = ("a red ball",)
) -> RunParts:
    """Return what a step of a recipe works with, without any file.

    Conditions of the prompts other than text are left out: the model then reads zeros in their
    channels, at the same cost.

    Args:
        recipe: Resolved.
        shape: Shapes of the networks.
        device: Device of the step; `meta` for shapes without values.
        prompts: Training prompts.

    Raises:
        TuningError: A judge without image and text towers, or a replay, whose clips are not here.
        GeneratorError: The weights cannot be quantised on this device.
    """
    if recipe.train.replay is not None:
        raise TuningError("train.replay: its clips are not here; set train.replay=null")
    frames = recipe.sampling.frames
    judges = judges_for_shape(recipe.rewards, shape, frames, device) or [formula_judge(frames)]
    rests = MODES[recipe.generator.memory].parts_rest and device.type != "meta"
    resting = judge_modules(judges) if rests else []
    _, offload = split_offload(resting, None, device)
    generator = random_generator(recipe.generator, shape, device)
    if wants_small_decoder(recipe.train):
        add_small_decoder(generator, device)
    parameters = attach_adapter(
        generator.transformer, recipe.lora, seed=derive_seed(recipe.seed, "adapter")
    )
    if recipe.train.gradient_checkpointing:
        generator.transformer.enable_gradient_checkpointing()
    if recipe.train.offload_activations:
        if device.type == "meta":
            offload_activations(generator.transformer, _gone, _back_again)
        else:
            offload_activations(generator.transformer)
    if recipe.train.compile:
        compile_blocks(generator.transformer)
    asked = [Prompt(text, text) for text in prompts]
    states = random_states([*prompts, recipe.sampling.negative_prompt], shape)
    options = step_options(recipe)
    return RunParts(
        clip_sampler(recipe, generator, states, asked, silent),
        trained_adapter(generator.transformer, parameters),
        judges,
        [*(judge.label for judge in judges), *options.terms.labels],
        PromptStream(asked, recipe.seed),
        asked,
        training_sigmas(recipe),
        {},
        options,
        offload=offload.joined(generator.resting.vae),
        group=group_of(recipe, options),
    )


def random_states(texts: Sequence[str], shape: Shape) -> dict[str, Tensor]:
    """Return text states `(l, d)` of each text."""
    draw = torch.Generator().manual_seed(0)
    return {text: torch.randn(shape.text, generator=draw) for text in texts}


def _gone(tensor: Tensor) -> Tensor:
    """Stand for a copy in the CPU's memory, with the memory of one number."""
    return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)


def _back_again(tensor: Tensor, device: torch.device) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)


def random_generator(section: GeneratorSection, shape: Shape, device: torch.device) -> Generator:
    """Return a generator with random weights, stored as the section says."""
    dtype = getattr(torch, section.dtype)
    file = Path(shape.name)
    arguments = transformer_arguments_of(file, shape.transformer, EasyAnimateTransformer3DModel)
    transformer = empty_model(EasyAnimateTransformer3DModel, arguments)
    kind = None if device.type == "meta" else section.quantise  # stored otherwise, used alike
    if kind is not None:
        require(kind, device)
    weights = RandomWeights(device, "transformer")
    state = {}
    for name, like in transformer.state_dict().items():
        tensor, home = weights(name, like, dtype), block_home(section.memory, name, device)
        if device.type == "meta":
            home = device
        in_block = name.startswith(FAMILY.block_prefix)
        if kind and in_block and quantised(transformer, name, tensor, kind, home):
            continue
        state[name] = tensor.to(home)
    transformer.load_state_dict(state, strict=True, assign=True)
    transformer = transformer.requires_grad_(False).eval()
    mode, on_meta = MODES[section.memory], device.type == "meta"
    if mode.blocks_rest and not on_meta:
        stream_blocks(transformer, device)
    arguments = vae_arguments_of(file, shape.vae, AutoencoderKLMagvit)
    vae = empty_model(AutoencoderKLMagvit, arguments)
    fill(vae, RandomWeights(device, "vae"), dtype)
    vae = vae.requires_grad_(False).eval()
    resting = Resting.parts(vae, None, device) if mode.parts_rest and not on_meta else None
    return Generator(transformer, vae, resting=resting)


def add_small_decoder(generator: Generator, device: torch.device) -> None:
    """Give a generator a small decoder with random weights."""
    with torch.device("meta"):
        small = SmallDecoder(SmallDecoderConfig())
    fill(small, RandomWeights(device, "small decoder"), generator.dtype)
    generator.small_decoder = small.requires_grad_(False).eval()

"""The parts of a recipe's optimiser step with weights that nobody trained, at any size, anywhere.

A recipe of the published models gets the published shapes (the configs in tests/published, the text
encoder's 256 tokens of 3,584 channels, the judge's published architecture), an embedded one the
shapes of its files. Nothing is downloaded. On the meta device the weights have shapes and no
values; elsewhere they are random, small enough for finite velocities.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLMagvit, EasyAnimateTransformer3DModel
from torch import Tensor, nn

from base_model.core.family import FAMILY
from base_model.files.shipped import resolve_checkpoint
from base_model.files.weight_files import read_json
from base_model.generator import Generator
from base_model.loading.checkpoint import empty_model
from base_model.loading.model_configs import transformer_arguments_of, vae_arguments_of
from base_model.memory.block_offload import stream_blocks
from base_model.memory.modes import MODES
from base_model.memory.quantise import quantised, require
from base_model.memory.resting import Resting, block_home
from base_model.networks.small_decoder import SmallDecoder, SmallDecoderConfig
from reward_tuning.errors import TuningError
from reward_tuning.inputs.prompts import Prompt, PromptStream
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.judges.offload import judge_modules, split_offload
from reward_tuning.lora.init import attach_adapter
from reward_tuning.progress import silent
from reward_tuning.runs.training_state import trained_adapter
from reward_tuning.sampling.compilation import compile_blocks
from reward_tuning.schema.judge_parts import TwoTowerSection
from reward_tuning.schema.judge_roles import FrameRewardSection
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.group import group_of
from reward_tuning.tuning.parts import RunParts, clip_sampler, step_options
from reward_tuning.tuning.sigma_tables import training_sigmas
from reward_tuning.tuning.small_decoding import wants_small_decoder
from rewards.clip_towers.open_clip_models import (
    Architecture,
    build_model,
    cast_weights,
    image_size,
    open_clip_config,
    restore_causal_mask,
)
from rewards.clip_towers.tokenizers import build_tokenizer
from rewards.clip_towers.tower import ClipTower, find_architecture
from rewards.core.published import published as published_file
from rewards.core.weight_file import load_weights
from rewards.kinds.clip import ClipReward, clip_preprocess
from rewards.kinds.hps import HpsReward, hps_preprocess
from tests.published_layout import Kind, Size, published, transformer_config

TEXT = (256, 3584)
"""Tokens and channels of the published text encoder's states."""

_PUBLISHED = re.compile(r"EasyAnimateV5\.1-(7b|12b)-zh(-InP|-Control-Camera|-Control)?")
_KINDS: Mapping[str | None, Kind] = {
    None: "text",
    "-InP": "inpaint",
    "-Control": "control",
    "-Control-Camera": "camera",
}
STD = 0.02
"""Of random weights outside convolutions: a velocity of 3,072 channels stays near 1."""


@dataclass(frozen=True)
class Shape:
    """The networks of a step.

    Attributes:
        name: What they are the shapes of.
        transformer: Its config.
        vae: Its config.
        judge: open_clip's architecture of every judge; None takes that of each judge's own file.
        text: Tokens and channels of a prompt's states.
    """

    name: str
    transformer: Mapping[str, Any]
    vae: Mapping[str, Any]
    judge: Architecture | None = None
    text: tuple[int, int] = TEXT

    @property
    def blocks(self) -> tuple[int, int]:
        """Number of blocks with a text stream of their own, and without."""
        layers = self.transformer["num_layers"]
        own = min(self.transformer["mmdit_layers"], layers)
        return own, layers - own

    def with_blocks(self, own: int, shared: int) -> Shape:
        """Return the same shape with other numbers of blocks."""
        change = {"num_layers": own + shared, "mmdit_layers": own}
        return replace(self, transformer={**self.transformer, **change})


SMALL = Shape(
    "small",
    transformer_config("7b", "inpaint")
    | {
        "num_attention_heads": 2,
        "attention_head_dim": 32,
        "num_layers": 3,
        "mmdit_layers": 2,
        "time_embed_dim": 32,
        "text_embed_dim": 48,
    },
    published("vae")
    | {"block_out_channels": [8, 8, 16, 16], "layers_per_block": 1, "norm_num_groups": 4},
    {
        "embed_dim": 32,
        "vision_cfg": {
            "image_size": 32,
            "layers": 2,
            "width": 32,
            "patch_size": 8,
            "head_width": 16,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 2,
        },
    },
    (16, 48),
)
"""A 7B and its judge in small, for checks on a CPU."""
SMALL_CLIP = (
    "sampling.frames=1",
    "sampling.height=32",
    "sampling.width=32",
    "rewards.0.frames=1",
    "evaluation.held_out_rewards.0.frames=1",
)
"""Overrides of a published model's recipe that fit it."""


def shape_of(recipe: Recipe) -> Shape:
    """Return the shapes of a recipe's networks.

    Raises:
        TuningError: The checkpoint is neither a published nor a shipped one.
    """
    checkpoint = recipe.generator.checkpoint
    if found := _PUBLISHED.search(checkpoint):
        size: Size = "7b" if found[1] == "7b" else "12b"
        config = transformer_config(size, _KINDS[found[2]])
        return Shape(f"EasyAnimateV5.1 {size}", config, published("vae"))
    folder = resolve_checkpoint(checkpoint)
    if not isinstance(folder, Path):
        raise TuningError(
            f"{recipe.output}: the shapes of {checkpoint} are not known here; allowed: a published "
            "EasyAnimateV5.1, a shipped checkpoint, or a folder"
        )
    config = read_json(folder / "transformer" / "config.json")
    tokens = read_json(folder / "text_encoder" / "config.json")["max_position_embeddings"]
    text = (tokens, config["text_embed_dim"])
    return Shape(checkpoint, config, read_json(folder / "vae" / "config.json"), text=text)


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
    judges = [_judge(section, shape, recipe, device) for section in recipe.rewards]
    resting = judge_modules(judges) if MODES[recipe.generator.memory].parts_rest else []
    _, offload = split_offload(resting, None, device)
    generator = random_generator(recipe, shape, device)
    parameters = attach_adapter(
        generator.transformer, recipe.lora, seed=derive_seed(recipe.seed, "adapter")
    )
    if recipe.train.gradient_checkpointing:
        generator.transformer.enable_gradient_checkpointing()
    if recipe.train.compile:
        compile_blocks(generator.transformer)
    asked = [Prompt(text, text) for text in prompts]
    names = [*prompts, recipe.sampling.negative_prompt]
    draw = torch.Generator().manual_seed(0)
    states = {name: torch.randn(shape.text, generator=draw) for name in names}
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


def random_generator(recipe: Recipe, shape: Shape, device: torch.device) -> Generator:
    """Return a generator with random weights, stored as the recipe says."""
    section = recipe.generator
    dtype = getattr(torch, section.dtype)
    file = Path(shape.name)
    arguments = transformer_arguments_of(file, shape.transformer, EasyAnimateTransformer3DModel)
    transformer = empty_model(EasyAnimateTransformer3DModel, arguments)
    kind = None if device.type == "meta" else section.quantise  # stored otherwise, used alike
    if kind is not None:
        require(kind, device)
    weights = _Weights(device, "transformer")
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
    fill(vae, _Weights(device, "vae"), dtype)
    vae = vae.requires_grad_(False).eval()
    resting = Resting.parts(vae, None, device) if mode.parts_rest and not on_meta else None
    generator = Generator(transformer, vae, resting=resting)
    if wants_small_decoder(recipe.train):
        with torch.device("meta"):
            small = SmallDecoder(SmallDecoderConfig())
        fill(small, _Weights(device, "small decoder"), dtype)
        generator.small_decoder = small.requires_grad_(False).eval()
    return generator


def fill(module: nn.Module, weights: _Weights, dtype: torch.dtype | None = None) -> None:
    """Give a module from the meta device its values; None keeps each tensor's dtype."""
    state = {
        name: weights(name, like, dtype or like.dtype) for name, like in module.state_dict().items()
    }
    module.load_state_dict(state, strict=True, assign=True)


class _Weights:
    """Random values of a tensor by its name: ones and zeros for norms, else normal.

    A convolution keeps the size of its input (He et al., arXiv 1502.01852).
    """

    def __init__(self, device: torch.device, seed: str) -> None:
        self._device = device
        self._draw = None
        if device.type != "meta":
            self._draw = torch.Generator(device).manual_seed(derive_seed(0, seed) % 2**63)

    def __call__(self, name: str, like: Tensor, dtype: torch.dtype) -> Tensor:
        x = torch.empty(like.shape, dtype=dtype, device=self._device)
        if self._draw is None:
            return x
        if like.dim() == 1 and name.endswith(".bias"):
            return x.zero_()
        if like.dim() == 1 and name.endswith(".weight"):
            return x.fill_(1.0)
        std = math.sqrt(2.0 / like[0].numel()) if like.dim() > 3 else STD
        return x.normal_(0.0, std, generator=self._draw)


def _judge(section: Any, shape: Shape, recipe: Recipe, device: torch.device) -> FramedJudge:
    if not isinstance(section, TwoTowerSection) or not isinstance(section, FrameRewardSection):
        raise TuningError(
            f"the judge {section.label} has no image and text towers of open_clip; allowed here: "
            "kind hps and clip"
        )
    architecture = shape.judge or _architecture(section)
    dtype = getattr(torch, section.dtype)
    model = build_model(architecture, torch.device("meta"), dtype)
    cast_weights(model, architecture, dtype)
    fill(model, _Weights(device, section.label))
    if device.type != "meta":
        restore_causal_mask(model)
    if section.gradient_checkpointing:
        model.set_grad_checkpointing(True)
    model = model.to(device)
    hps, size = section.kind == "hps", image_size(architecture)
    tower = ClipTower(
        model,
        architecture,
        hps_preprocess(size) if hps else clip_preprocess(size),
        build_tokenizer(open_clip_config("ViT-H-14"), None, None),
        dtype,
    )
    reward = HpsReward(tower) if hps else ClipReward(tower)
    reward.name, reward.chunk = section.label, section.chunk
    terms = section.model_dump(include={"weight", "target", "mean", "std"})
    judged = tuple(section.judged_frames(recipe.sampling.frames))
    return FramedJudge(reward, section.label, judged, **terms)


def _architecture(section: TwoTowerSection) -> Architecture:
    record = published_file(section.checkpoint)
    if record is not None and record.architecture is not None:
        return open_clip_config(record.architecture)
    return find_architecture(load_weights(section.checkpoint, None), None)[0]

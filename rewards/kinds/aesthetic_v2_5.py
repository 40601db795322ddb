"""The aesthetic predictor v2.5: a head on normalised SigLIP features.

Source of the formula: discus0434/aesthetic-predictor-v2-5. Its weights are under the AGPL, so they
are neither shipped nor fetched: the user provides them. Like LAION's, the head has no activation;
at evaluation it is one affine map.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewards.clip_towers.open_clip_models import LOW_PRECISION
from rewards.clip_towers.siglip import CONFIGS, Norm, SiglipConfig, SiglipVision
from rewards.clip_towers.tower import unit_length
from rewards.core.json_text import json_object
from rewards.core.preprocess import Preprocess
from rewards.core.shared_towers import derived
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import WeightFile, check_keys, load_weights
from rewards.errors import RewardError
from rewards.kinds.aesthetic import AestheticReward, filled_head, find_tower

WIDTHS = (1024, 128, 64, 16, 1)  # layers of the published head
DROPOUT = (0.5, 0.5, 0.5, 0.2)  # behind each layer but the last; inactive here
LEFT_OUT = ("text_model.", "logit_scale", "logit_bias", "vision_model.embeddings.position_ids")
"""Prefixes of a SigLIP's tensors outside its image tower, which are ignored; others are refused."""


class SiglipTower:
    """A frozen SigLIP image tower: normalised fp32 features.

    Attributes:
        model: The network, in evaluation mode.
        preprocess: Preprocessing of frames.
        dtype: Dtype of the weights; layer norms stay fp32 in bf16 and fp16.
        left_out: Names of the file's unused tensors, those of the text side.
    """

    def __init__(
        self,
        model: SiglipVision,
        preprocess: Preprocess,
        dtype: torch.dtype,
        left_out: tuple[str, ...] = (),
    ) -> None:
        self.model: Any = model
        self.preprocess = preprocess
        self.dtype = dtype
        self.left_out = left_out

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def image_features(self, images: Tensor) -> Tensor:
        """Encode frames `(n, 3, H, W)` in [0, 1]: `(n, d)` of length 1, fp32 (fp64 in fp64)."""

        def compute() -> Tensor:
            return unit_length(self.model(self.preprocess(images).to(self.dtype)))

        return derived(images, (self.model, self.preprocess, self.dtype), compute)


class AestheticV25Reward(AestheticReward):
    """A head on a SigLIP, independent of the prompt; scores about 1 to 10, above 5.5 is good."""

    name = "aesthetic_v2_5"


def build_head(features: int) -> nn.Sequential:
    """Build the published head: `scoring_head.{0,2,4,6,8}` with dropout between.

    Args:
        features: Width of the image features (1152 for so400m).

    Returns:
        `(n, features)` of length 1 -> `(n, 1)`, about 1 to 10.
    """
    w = (features, *WIDTHS)
    layers: list[nn.Module] = []
    for i in range(len(WIDTHS)):
        layers.append(nn.Linear(w[i], w[i + 1]))
        if i < len(DROPOUT):
            layers.append(nn.Dropout(DROPOUT[i]))
    return nn.Sequential(OrderedDict(scoring_head=nn.Sequential(*layers)))


def siglip_preprocess(size: int) -> Preprocess:
    """Return that of `SiglipImageProcessor`: PIL bicubic to a square, then [-1, 1]."""
    half = (0.5, 0.5, 0.5)
    return Preprocess("squash", size, half, half, quantised=True)


def load_aesthetic_v2_5(
    checkpoint: str | Path,
    tower_options: TowerOptions,
    *,
    architecture: str | Mapping[str, Any] | None = None,
    tower: str | Path | None = None,
) -> AestheticV25Reward:
    """Load a head and the SigLIP it was trained on.

    Args:
        checkpoint: File of the head.
        tower_options: Where and how the tower runs; the head is fp32.
        architecture: Architecture of the tower, a name of `rewards.clip_towers.siglip.CONFIGS` or
            the fields of a `SiglipConfig`, for a file that does not state it.
        tower: File of the SigLIP, if not the one that the head's file or record names.

    Raises:
        RewardError: See `rewards.load_reward`; also if no tower is known.
    """
    head_file = load_weights(checkpoint, tower_options.folder)
    advice = "on which SigLIP its head was trained. Add it to the judge: tower: siglip-so400m"
    tower_file = find_tower(head_file, tower, tower_options.folder, advice)
    config, what = find_config(tower_file, architecture)
    siglip = load_siglip(tower_file, config, what, tower_options)
    features = config.hidden_size
    name = f"an aesthetic v2.5 head on {features} features"
    head = filled_head(build_head(features), head_file, name, tower_options)
    return AestheticV25Reward(siglip, head)


def find_config(
    checkpoint: WeightFile, given: str | Mapping[str, Any] | None
) -> tuple[SiglipConfig, str]:
    """Return the sizes of a file's SigLIP, and its name for messages.

    Raises:
        RewardError: They are not stated, or the name or a field is unknown.
    """
    inside = checkpoint.metadata.get("architecture")
    if given is None and inside is not None:
        given = json_object(inside, f"the architecture in {checkpoint.path}")
    if given is None and checkpoint.published is not None:
        given = checkpoint.published.architecture
    if given is None:
        raise RewardError(
            f"{checkpoint.path} does not state which SigLIP it is. Add it to the judge: "
            f"architecture: {next(iter(CONFIGS))}"
        )
    if isinstance(given, str):
        if given not in CONFIGS:
            raise RewardError(f"unknown SigLIP {given!r}; allowed: {', '.join(CONFIGS)}")
        return CONFIGS[given], given
    try:
        return SiglipConfig(**given), f"the given SigLIP (hidden_size {given.get('hidden_size')})"
    except TypeError as error:
        raise RewardError(f"cannot build this SigLIP: {error}") from error


def load_siglip(
    checkpoint: WeightFile, config: SiglipConfig, what: str, options: TowerOptions
) -> SiglipTower:
    """Load the image tower of a SigLIP's file into its architecture, strictly.

    Args:
        checkpoint: File with transformers' names: of a whole `SiglipModel`, of which `LEFT_OUT` is
            ignored, or of a `SiglipVisionModel` with or without the prefix `vision_model.`.
        config: Sizes of the tower.
        what: Name of the architecture, for messages.
        options: Where and how it runs.

    Raises:
        RewardError: A name is missing or unknown, or a shape differs.
    """
    with torch.device("meta"):
        model = SiglipVision(config, recompute=options.gradient_checkpointing)
    prefix = "vision_model."
    if not any(name.startswith(prefix) for name in checkpoint.state):
        prefix = ""
    left_out = tuple(n for n in checkpoint.state if prefix and n.startswith(LEFT_OUT))
    state = {name: t for name, t in checkpoint.state.items() if name not in left_out}
    expected = {f"{prefix}{name}": tensor.shape for name, tensor in model.state_dict().items()}
    check_keys(expected, state, what, checkpoint.path)
    exact = torch.promote_types(options.dtype, torch.float32)
    state = {name.removeprefix(prefix): t.to(exact) for name, t in state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    if options.dtype in LOW_PRECISION:
        model.to(options.dtype)
        for module in model.modules():
            if isinstance(module, Norm):
                module.float()
    model = model.to(options.device).eval().requires_grad_(False)
    if options.pool is not None:
        model = options.pool.share(model, str(config), options.gradient_checkpointing)
    return SiglipTower(model, siglip_preprocess(config.image_size), options.dtype, left_out)

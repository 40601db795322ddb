"""The LAION aesthetic predictor v2: a head on normalised CLIP image features.

Source: christophschuhmann/improved-aesthetic-predictor. The head has dropout between its layers but
no activation, so at evaluation it is one affine map, unbounded on both sides: "target 10" is no
ceiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rewards.clip_towers.open_clip_models import Architecture, image_size
from rewards.clip_towers.tower import find_architecture, load_tower
from rewards.core.base import FrameReward
from rewards.core.preprocess import Prepared, prepared
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import WeightFile, check_keys, load_weights
from rewards.errors import RewardError
from rewards.kinds.clip import clip_preprocess
from rewards.networks.laion_head import build_head


class ImageTower(Protocol):
    """What a head sits on."""

    model: Any

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def image_features(self, images: Tensor) -> Tensor:
        """`(n, 3, H, W)` in [0, 1] -> `(n, d)` of length 1, fp32."""
        ...


class AestheticReward(FrameReward):
    """Head on a CLIP; the prompt does not matter. About 1 to 10, usually 4 to 7."""

    name = "aesthetic"
    reads_text = False

    def __init__(self, tower: ImageTower, head: nn.Module) -> None:
        self.tower = tower
        self.head = head.eval().requires_grad_(False)
        self.device = tower.device

    @property
    def modules(self) -> list[nn.Module]:
        """The tower and the head."""
        return [self.tower.model, self.head]

    def condition(self, prompts: Sequence[str]) -> None:
        """Nothing: the judge looks at the frame alone."""

    def image_features(self, images: Tensor) -> Tensor:
        """Those of the tower, `(n, d)` of length 1."""
        return self.tower.image_features(images)

    def score_images(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """`(n, 3, H, W)` in [0, 1] -> `(n,)`."""
        return self.head(self.tower.image_features(images)).squeeze(-1)


def load_aesthetic(
    checkpoint: str | Path,
    tower_options: TowerOptions,
    *,
    architecture: str | Architecture | None = None,
    tower: str | Path | None = None,
    preprocess: Prepared = "own",
) -> AestheticReward:
    """Load a head and the CLIP it was trained on.

    Args:
        checkpoint: The head's file.
        tower_options: Where and how the networks run; dtype: of the tower; the head is fp32.
        architecture: Of the tower, open_clip's name, for a file that does not say.
        tower: The CLIP's checkpoint, if not the one that the head's file or record names.
        preprocess: `own` as OpenAI's CLIP, `squash` as EasyAnimate's reward script
            (`rewards.core.preprocess.Preprocess.squashed`).

    Raises:
        RewardError: See `rewards.load_reward`; also when no tower is known.
    """
    head_file = load_weights(checkpoint, tower_options.folder)
    advice = "on which CLIP its head was trained. Add it to the judge: tower: clip-vit-l-14 (for "
    tower_file = find_tower(
        head_file, tower, tower_options.folder, advice + "the published LAION head)"
    )
    own, _ = find_architecture(tower_file, architecture)
    preprocessing = clip_preprocess(image_size(own))
    clip = load_tower(tower_file, tower_options, architecture, preprocessing)
    clip.preprocess = prepared(clip.preprocess, preprocess)
    return AestheticReward(clip, load_head(head_file, own["embed_dim"], tower_options))


def find_tower(
    head_file: WeightFile, tower: str | Path | None, folder: Path | None, advice: str
) -> WeightFile:
    """Read the tower under a head: the one given, or the one the head's file or record names.

    Args:
        head_file: The head.
        tower: As the recipe says.
        folder: What the recipe's paths are relative to.
        advice: What the file does not say, and how to say it.

    Raises:
        RewardError: Nobody names a tower, or it cannot be read.
    """
    record = head_file.published.tower if head_file.published is not None else None
    if tower is not None:
        return load_weights(tower, folder)
    if "tower" in head_file.metadata:
        # A name inside the file is that of a file beside it.
        return load_weights(head_file.metadata["tower"], head_file.path.parent)
    if record is None:
        raise RewardError(f"{head_file.path} does not say {advice}")
    return load_weights(record, folder)


def load_head(checkpoint: WeightFile, features: int, options: TowerOptions) -> nn.Module:
    """LAION's head from a file (see `filled_head`)."""
    what = f"an aesthetic head on {features} features"
    return filled_head(build_head(features), checkpoint, what, options)


def filled_head(
    head: nn.Module, checkpoint: WeightFile, what: str, options: TowerOptions
) -> nn.Module:
    """Put a file's tensors into a head, strictly, in fp32 (fp64 under an fp64 tower)."""
    expected = {name: tensor.shape for name, tensor in head.state_dict().items()}
    check_keys(expected, checkpoint.state, what, checkpoint.path)
    head.load_state_dict(checkpoint.state)
    return head.to(options.device, torch.promote_types(options.dtype, torch.float32))


def affine(head: nn.Module) -> tuple[Tensor, Tensor]:
    """Collapse the head to the one affine map it is.

    Returns:
        `(features,)` and `()`: score = features @ weight + bias.
    """
    weight: Tensor | None = None
    bias: Tensor | None = None
    for layer in head.modules():
        if not isinstance(layer, nn.Linear):
            continue
        if weight is None or bias is None:
            weight, bias = layer.weight, layer.bias
        else:
            weight, bias = layer.weight @ weight, layer.weight @ bias + layer.bias
    assert weight is not None and bias is not None
    return weight[0], bias[0]

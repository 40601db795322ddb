"""The LAION aesthetic predictor v2: a head on normalised CLIP image features.

Source: christophschuhmann/improved-aesthetic-predictor. The head has dropout between its layers but
no activation, so at evaluation it is one affine map, unbounded on both sides: 10 is not the
maximum.
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
from rewards.core.preprocess import PreprocessChoice, chosen_preprocess
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import WeightFile, check_keys, load_weights
from rewards.errors import RewardError
from rewards.kinds.clip import clip_preprocess
from rewards.networks.laion_head import build_head


class ImageTower(Protocol):
    """The image tower below a head."""

    model: Any

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def image_features(self, images: Tensor) -> Tensor:
        """Encode frames: `(n, 3, H, W)` in [0, 1] -> `(n, d)` of length 1, fp32."""
        ...


class AestheticReward(FrameReward):
    """A head on a CLIP, independent of the prompt; scores about 1 to 10, usually 4 to 7."""

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
        """Return None: the score does not depend on the prompt."""

    def image_features(self, images: Tensor) -> Tensor:
        """Return the tower's image features, `(n, d)` of length 1."""
        return self.tower.image_features(images)

    def score_images(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """Score frames: `(n, 3, H, W)` in [0, 1] -> `(n,)`."""
        return self.head(self.tower.image_features(images)).squeeze(-1)


def load_aesthetic(
    checkpoint: str | Path,
    tower_options: TowerOptions,
    *,
    architecture: str | Architecture | None = None,
    tower: str | Path | None = None,
    preprocess: PreprocessChoice = "own",
) -> AestheticReward:
    """Load a head and the CLIP it was trained on.

    Args:
        checkpoint: File of the head.
        tower_options: Where and how the tower runs; the head is fp32.
        architecture: open_clip's model name of the tower, for a file that does not state it.
        tower: File of the CLIP, if not the one that the head's file or record names.
        preprocess: `own` as OpenAI's CLIP, `squash` as EasyAnimate's reward script
            (`rewards.core.preprocess.Preprocess.squashed`).

    Raises:
        RewardError: See `rewards.load_reward`; also if no tower is known.
    """
    head_file = load_weights(checkpoint, tower_options.folder)
    advice = "on which CLIP its head was trained. Add it to the judge: tower: clip-vit-l-14 (for "
    tower_file = find_tower(
        head_file, tower, tower_options.folder, advice + "the published LAION head)"
    )
    own, _ = find_architecture(tower_file, architecture)
    preprocessing = clip_preprocess(image_size(own))
    clip = load_tower(tower_file, tower_options, architecture, preprocessing)
    clip.preprocess = chosen_preprocess(clip.preprocess, preprocess)
    return AestheticReward(clip, load_head(head_file, own["embed_dim"], tower_options))


def find_tower(
    head_file: WeightFile, tower: str | Path | None, folder: Path | None, advice: str
) -> WeightFile:
    """Read the tower below a head: the given one, or the one that the head's file or record names.

    Args:
        head_file: File of the head.
        tower: Name in the recipe.
        folder: Folder that the recipe's paths start from.
        advice: What the file does not state, and how to give it, for the message.

    Raises:
        RewardError: No tower is named, or it cannot be read.
    """
    record = head_file.published.tower if head_file.published is not None else None
    if tower is not None:
        return load_weights(tower, folder)
    if "tower" in head_file.metadata:
        # A name inside the file refers to a file in the same folder.
        return load_weights(head_file.metadata["tower"], head_file.path.parent)
    if record is None:
        raise RewardError(f"{head_file.path} does not state {advice}")
    return load_weights(record, folder)


def load_head(checkpoint: WeightFile, features: int, options: TowerOptions) -> nn.Module:
    """Load LAION's head from a file (see `filled_head`)."""
    what = f"an aesthetic head on {features} features"
    return filled_head(build_head(features), checkpoint, what, options)


def filled_head(
    head: nn.Module, checkpoint: WeightFile, what: str, options: TowerOptions
) -> nn.Module:
    """Load a file's tensors into a head, strictly, in fp32 (fp64 on an fp64 tower)."""
    expected = {name: tensor.shape for name, tensor in head.state_dict().items()}
    check_keys(expected, checkpoint.state, what, checkpoint.path)
    head.load_state_dict(checkpoint.state)
    return head.to(options.device, torch.promote_types(options.dtype, torch.float32))


def affine(head: nn.Module) -> tuple[Tensor, Tensor]:
    """Collapse the head to one affine map.

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

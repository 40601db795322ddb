"""The LAION aesthetic predictor v2: a head on normalised CLIP image features.

Source: christophschuhmann/improved-aesthetic-predictor. The head has dropout between its layers but
no activation, so at evaluation it is one affine map, unbounded on both sides: "target 10" is no
ceiling.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rewards.base import FrameReward
from rewards.checkpoint import Checkpoint, check_keys, load_checkpoint
from rewards.clip import clip_preprocess, image_size
from rewards.clip_tower import Architecture, ClipTower, TowerOptions, load_tower
from rewards.errors import RewardError

WIDTHS = (1024, 128, 64, 16, 1)


def build_head(features: int) -> nn.Sequential:
    """The published head: ``layers.{0,2,4,6,7}`` with dropout at 1, 3 and 5.

    Args:
        features: width of the image features (768 for ViT-L-14).

    Returns:
        ``(n, features)`` of length 1 -> ``(n, 1)``, about 1 to 10.
    """
    w = (features, *WIDTHS)
    linear = [nn.Linear(w[i], w[i + 1]) for i in range(5)]
    layers = nn.Sequential(
        linear[0], nn.Dropout(0.2), linear[1], nn.Dropout(0.2), linear[2], nn.Dropout(0.1),
        linear[3], linear[4],
    )  # fmt: skip
    return nn.Sequential(OrderedDict(layers=layers))


class AestheticReward(FrameReward):
    """Head on a CLIP; the prompt does not matter. About 1 to 10, usually 4 to 7."""

    name = "aesthetic"
    reads_text = False

    def __init__(self, tower: ClipTower, head: nn.Module) -> None:
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
        """Those of the tower, ``(n, d)`` of length 1."""
        return self.tower.image_features(images)

    def score_images(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """``(n, 3, H, W)`` in [0, 1] -> ``(n,)``."""
        return self.head(self.tower.image_features(images)).squeeze(-1)


def load_aesthetic(
    checkpoint: str | Path,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    folder: Path | None = None,
    gradient_checkpointing: bool = False,
    architecture: str | Architecture | None = None,
    tower: str | Path | None = None,
) -> AestheticReward:
    """Load a head and the CLIP it was trained on.

    Args:
        checkpoint: the head's file.
        device: where it runs.
        dtype: of the tower; the head is fp32.
        folder: what relative paths are relative to.
        gradient_checkpointing: recompute each block of the tower.
        architecture: of the tower, open_clip's name, for a file that does not say.
        tower: the CLIP's checkpoint, if not the one that the head's file or record names.

    Raises:
        RewardError: see :func:`rewards.loading.load_reward`; also when no tower is known.
    """
    head_file = load_checkpoint(checkpoint, folder)
    record = head_file.published.tower if head_file.published is not None else None
    tower_name = tower or head_file.metadata.get("tower") or record
    if tower_name is None:
        raise RewardError(
            f"{head_file.path} does not say on which CLIP its head was trained. Add it to the "
            "judge: tower: clip-vit-l-14 (for the published LAION head)."
        )
    # A name inside the file is that of a file beside it.
    beside = tower is None and "tower" in head_file.metadata
    tower_file = load_checkpoint(tower_name, head_file.path.parent if beside else folder)
    options = TowerOptions(device, dtype, architecture, gradient_checkpointing)
    clip = load_tower(tower_file, options, clip_preprocess(image_size(tower_file, options)))
    return AestheticReward(clip, load_head(head_file, clip.architecture["embed_dim"], options))


def load_head(checkpoint: Checkpoint, features: int, options: TowerOptions) -> nn.Module:
    """Put a file's tensors into the head, strictly, in fp32 (fp64 under an fp64 tower)."""
    head = build_head(features)
    expected = {name: tensor.shape for name, tensor in head.state_dict().items()}
    what = f"an aesthetic head on {features} features"
    check_keys(expected, checkpoint.state, what, checkpoint.path)
    head.load_state_dict(checkpoint.state)
    return head.to(options.device, torch.promote_types(options.dtype, torch.float32))


def affine(head: nn.Module) -> tuple[Tensor, Tensor]:
    """Collapse the head to the one affine map it is.

    Returns:
        ``(features,)`` and ``()``: score = features @ weight + bias.
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

"""V-JEPA 2 as a judge of time: how well one part of a clip can be foretold from another.

Source: arXiv 2506.09985 and transformers' `VJEPA2Model`. The score is minus the surprise: the
mean distance between what the predictor says of unseen tubelets (pairs of frames) and what the
encoder makes of them.

A still is foretold best of all: never use this judge without a judge of motion beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from rewards.core.base import VideoReward
from rewards.core.json_text import json_file, json_object
from rewards.core.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from rewards.core.torchvision_import import ensure_torchvision_importable
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import WeightFile, check_keys, load_weights
from rewards.errors import RewardError

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


class VJepa2(VideoReward):
    """Minus the predictor's surprise: 0 at best; where nothing can be foretold about -0.8.

    The encoder attends over all it is given, so it sees the known tubelets alone: nothing of the
    others leaks into them. Targets are layer-normalised, as in training, and constants to the
    gradient: a clip may change what is foretold, not make its features easy to foretell. The known
    part is the beginning and, `both_ways`, then the end; so every frame gets a gradient.

    Attributes:
        preprocess: From frames to the encoder's input.
        contexts: Shares of the tubelets that are known; the surprise is the mean over them.
        both_ways: The beginning is foretold from the end, too.
    """

    name = "vjepa2"
    reads_text = False

    def __init__(
        self,
        model: Any,
        preprocess: Preprocess,
        contexts: Sequence[float] = (0.5,),
        *,
        both_ways: bool = True,
    ) -> None:
        if not contexts or not all(0 < share < 1 for share in contexts):
            raise RewardError(
                f"contexts are {list(contexts)}; give at least one share between 0 and 1, such as "
                "[0.5]: what part of a clip is known when the rest is foretold"
            )
        self.model: Any = model.eval().requires_grad_(False)
        self.preprocess = preprocess
        self.contexts = tuple(contexts)
        self.both_ways = both_ways
        self.tubelet: int = model.config.tubelet_size
        self.least_frames = self.tubelet + 1
        weight = next(model.parameters())
        self.device, self.dtype = weight.device, weight.dtype

    @property
    def modules(self) -> list[nn.Module]:
        """Encoder and predictor, one model."""
        return [self.model]

    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """`(b, f, 3, H, W)` in [0, 1] -> `(b,)`: minus `surprise`."""
        return -self.surprise(frames)

    def surprise(self, frames: Tensor) -> Tensor:
        """Mean absolute error of the predictor, `(b, f, 3, H, W)` in [0, 1] -> `(b,)`."""
        pixels = self.pixels(frames)
        tubelets = pixels.shape[1] // self.tubelet
        with torch.no_grad():
            targets = normalised_targets(self.model.encoder(pixels).last_hidden_state)
        tokens = targets.shape[1] // tubelets
        errors = []
        for share in self.contexts:
            # Rounded up: at a half, beginning and end together are the whole clip.
            known = min(math.ceil(share * tubelets), tubelets - 1)
            for part in self._known_parts(known, tubelets):
                seen = pixels[:, part.start * self.tubelet : part.stop * self.tubelet]
                places = token_places(part, tubelets, tokens, self.device)
                foretold = predict(self.model, encode(self.model, seen, places[0]), *places)
                errors.append((foretold - targets[:, places[1]]).abs().mean(dim=(1, 2)))
        return torch.stack(errors).mean(dim=0)

    def pixels(self, frames: Tensor) -> Tensor:
        """Frames as the encoder takes them, `(b, f, 3, H, W)` -> `(b, f', 3, size, size)`.

        Where f is no multiple of the tubelet, the first frame is repeated: it is always known when
        the rest is foretold, and the first of EasyAnimate's latents is a single frame as well.
        """
        pixels = self.preprocess(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        missing = -frames.shape[1] % self.tubelet
        pixels = torch.cat([pixels[:, :1]] * missing + [pixels], dim=1)
        return pixels.to(self.dtype)

    def _known_parts(self, known: int, tubelets: int) -> list[range]:
        beginning, end = range(known), range(tubelets - known, tubelets)
        return [beginning, end] if self.both_ways else [beginning]


def encode(model: Any, pixels: Tensor, places: Tensor) -> Tensor:
    """Features of the tubelets of a part of a clip.

    The published rotary embedding turns the two halves of a pair by different angles, so features
    depend on where in the clip a part is, and not only on distances within it.

    Args:
        model: A `VJEPA2Model`.
        pixels: `(b, f, 3, size, size)`, preprocessed frames of the part.
        places: `(n,)` of its tokens in the clip; `arange(n)` is what the model assumes.

    Returns:
        `(b, n, d)`.
    """
    encoder = model.encoder
    features, places = encoder.embeddings(pixels), places.expand(len(pixels), -1)
    for layer in encoder.layer:
        features = layer(features, places)[0]
    return encoder.layernorm(features)


def predict(model: Any, features: Tensor, known: Tensor, unknown: Tensor) -> Tensor:
    """What the predictor foretells.

    Args:
        model: A `VJEPA2Model`.
        features: `(b, k, d)` of the known tokens.
        known: `(k,)` their places in the clip.
        unknown: `(m,)` places to foretell.

    Returns:
        `(b, m, d)`, fp32 (or fp64).
    """
    predictor, count = model.predictor, len(features)
    known, unknown = known.expand(count, -1), unknown.expand(count, -1)
    # `predictor` itself would select the known tokens out of those of a whole clip.
    tokens, places = predictor.embeddings(features, [known], [unknown])
    order = places[0].argsort()
    tokens, places = tokens[:, order], places[:, order]
    for layer in predictor.layer:
        tokens = layer(tokens, places)[0]
    tokens = predictor.layernorm(tokens)[:, order.argsort()[known.shape[1] :]]
    foretold = predictor.proj(tokens)
    return foretold.to(torch.promote_types(foretold.dtype, torch.float32))


def normalised_targets(features: Tensor) -> Tensor:
    """Layer-normalised without weights, as V-JEPA 2's training has them; fp32 (or fp64)."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    return F.layer_norm(features, features.shape[-1:])


def token_places(
    part: range, tubelets: int, tokens: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Places of the known and of the other tokens of a clip."""
    places = torch.arange(tubelets * tokens, device=device)
    known = torch.zeros_like(places, dtype=torch.bool)
    known[part.start * tokens : part.stop * tokens] = True
    return places[known], places[~known]


def build_vjepa2(config: Mapping[str, Any], device: torch.device) -> Any:
    """A `VJEPA2Model` with random weights (none on the meta device).

    Raises:
        RewardError: The configuration is of another model, or no model can be made from it.
    """
    ensure_torchvision_importable()
    from transformers import VJEPA2Config, VJEPA2Model

    if config.get("model_type", "vjepa2") != "vjepa2":
        raise RewardError(
            f"the configuration is of a model of the type {config['model_type']!r}; this judge "
            "takes vjepa2, such as facebook/vjepa2-vitl-fpc64-256"
        )
    try:
        with device:
            return VJEPA2Model(VJEPA2Config(**config))
    except Exception as error:  # of every kind: each field is used in another place
        raise RewardError(
            f"no V-JEPA 2 can be made from the configuration ({type(error).__name__}: {error}). It "
            "is damaged, or of another version; fetch config.json again from where the weights "
            "came from"
        ) from error


def vjepa2_preprocess(size: int) -> Preprocess:
    """The published one: shortest side 8/7 of the crop (292 for 256), bilinear, centre crop."""
    return Preprocess(
        "crop",
        size,
        IMAGENET_MEAN,
        IMAGENET_STD,
        rounding="floor",
        shortest=int(size * 256 / 224),
        kernel="bilinear",
    )


def load_vjepa2(
    checkpoint: str | Path,
    tower_options: TowerOptions,
    *,
    contexts: Sequence[float] = (0.5,),
    both_ways: bool = True,
) -> VJepa2:
    """Load a V-JEPA 2 as a judge.

    Args:
        checkpoint: The file `model.safetensors` with its `config.json` beside it, the folder or
            hub id of both (`facebook/vjepa2-vitl-fpc64-256`), or a file that says its own
            architecture.
        tower_options: Where and how the networks run; dtype: of the weights; the surprise is fp32.
        contexts: Shares of a clip that are known.
        both_ways: Foretell the beginning from the end, too.

    Raises:
        RewardError: See `rewards.load_reward`; also a folder without a
            configuration, or one of another model.
    """
    name, at, revision = str(checkpoint).partition("@")
    file = name if name.endswith(".safetensors") else f"{name}/{WEIGHTS}"
    loaded = load_weights(f"{file}{at}{revision}", tower_options.folder)
    config = _configuration(loaded)
    model = build_vjepa2(config, torch.device("meta"))
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    what = f"a V-JEPA 2 of width {model.config.hidden_size}"
    check_keys(expected, loaded.state, what, loaded.path)
    state = {name: tensor.to(tower_options.dtype) for name, tensor in loaded.state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    if tower_options.gradient_checkpointing:
        recompute_blocks(model)
    preprocess = vjepa2_preprocess(model.config.crop_size)
    if "preprocess" in loaded.metadata:
        preprocess = Preprocess.from_json(loaded.metadata["preprocess"])
    return VJepa2(model.to(tower_options.device), preprocess, contexts, both_ways=both_ways)


def recompute_blocks(model: Any) -> None:
    """Recompute each transformer block in the backward pass; transformers does so in training."""
    for block in [*model.encoder.layer, *model.predictor.layer]:
        block.forward = partial(recomputed, block.forward, use_reentrant=False)


def _configuration(loaded: WeightFile) -> Mapping[str, Any]:
    if "architecture" in loaded.metadata:
        return json_object(loaded.metadata["architecture"], f"the architecture in {loaded.path}")
    path = loaded.path.with_name(CONFIG)
    if not path.is_file():
        raise RewardError(
            f"{path} is missing: it says which V-JEPA 2 the weights beside it are. Fetch it from "
            "where they came from (hf download ORG/NAME config.json)"
        )
    return json_file(path)

"""V-JEPA 2 as a judge of dynamics: how well one part of a clip predicts another.

Source: arXiv 2506.09985 and transformers' `VJEPA2Model`. The score is minus the surprise: the mean
distance between the predicted and the actual features of unseen tubelets (pairs of frames).

A still clip is the most predictable: never use this judge without a judge of motion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.core.base import VideoReward
from rewards.core.json_text import json_file, json_object
from rewards.core.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from rewards.core.recompute import recompute_blocks
from rewards.core.torchvision_import import ensure_torchvision_importable
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import WeightFile, check_keys, load_weights
from rewards.errors import RewardError

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


class VJepa2(VideoReward):
    """Minus the predictor's surprise: 0 at best, about -0.8 for an unpredictable clip.

    The encoder attends to everything it sees, so it gets the known tubelets only and nothing of the
    others leaks into them. Targets are layer-normalised, as in training, and have no gradient: a
    clip may change what is predicted, but not make its features easy to predict. The known part is
    the beginning and, with `both_ways`, also the end, so that every frame gets a gradient.

    Attributes:
        preprocess: Preprocessing of frames.
        contexts: Fractions of the tubelets that are known; the surprise is the mean over them.
        both_ways: Whether the beginning is also predicted from the end.
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
                f"contexts are {list(contexts)}; give at least one fraction between 0 and 1, such "
                "as [0.5]: the part of a clip that the rest is predicted from"
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
        """The model with encoder and predictor."""
        return [self.model]

    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return minus `surprise`: `(b, f, 3, H, W)` in [0, 1] -> `(b,)`."""
        return -self.surprise(frames)

    def surprise(self, frames: Tensor) -> Tensor:
        """Return the predictor's mean absolute error: `(b, f, 3, H, W)` in [0, 1] -> `(b,)`."""
        pixels = self.pixels(frames)
        tubelets = pixels.shape[1] // self.tubelet
        with torch.no_grad():
            targets = normalised_targets(self.model.encoder(pixels).last_hidden_state)
        tokens = targets.shape[1] // tubelets
        errors = []
        for share in self.contexts:
            # Rounded up, so that at 0.5 beginning and end together cover the whole clip.
            known = min(math.ceil(share * tubelets), tubelets - 1)
            for part in self._known_parts(known, tubelets):
                seen = pixels[:, part.start * self.tubelet : part.stop * self.tubelet]
                places = token_places(part, tubelets, tokens, self.device)
                predicted = predict(self.model, encode(self.model, seen, places[0]), *places)
                errors.append((predicted - targets[:, places[1]]).abs().mean(dim=(1, 2)))
        return torch.stack(errors).mean(dim=0)

    def pixels(self, frames: Tensor) -> Tensor:
        """Prepare frames for the encoder: `(b, f, 3, H, W)` -> `(b, f', 3, size, size)`.

        If f is not a multiple of the tubelet, the first frame is repeated: it is always known when
        the rest is predicted, and the first of EasyAnimate's latents is a single frame too.
        """
        pixels = self.preprocess(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        missing = -frames.shape[1] % self.tubelet
        pixels = torch.cat([pixels[:, :1]] * missing + [pixels], dim=1)
        return pixels.to(self.dtype)

    def _known_parts(self, known: int, tubelets: int) -> list[range]:
        beginning, end = range(known), range(tubelets - known, tubelets)
        return [beginning, end] if self.both_ways else [beginning]


def encode(model: Any, pixels: Tensor, places: Tensor) -> Tensor:
    """Encode the tubelets of a part of a clip.

    The published rotary embedding rotates the two halves of a pair by different angles, so features
    depend on the position of the part in the clip, not only on distances within it.

    Args:
        model: A `VJEPA2Model`.
        pixels: `(b, f, 3, size, size)`, preprocessed frames of the part.
        places: `(n,)` positions of its tokens in the clip; the model assumes `arange(n)`.

    Returns:
        `(b, n, d)`.
    """
    encoder = model.encoder
    features, places = encoder.embeddings(pixels), places.expand(len(pixels), -1)
    for layer in encoder.layer:
        features = layer(features, places)[0]
    return encoder.layernorm(features)


def predict(model: Any, features: Tensor, known: Tensor, unknown: Tensor) -> Tensor:
    """Predict the features of unknown tokens.

    Args:
        model: A `VJEPA2Model`.
        features: `(b, k, d)` of the known tokens.
        known: `(k,)` their positions in the clip.
        unknown: `(m,)` positions to predict.

    Returns:
        `(b, m, d)`, fp32 (or fp64).
    """
    predictor, count = model.predictor, len(features)
    known, unknown = known.expand(count, -1), unknown.expand(count, -1)
    # The predictor's own forward selects the known tokens from those of a whole clip.
    tokens, places = predictor.embeddings(features, [known], [unknown])
    order = places[0].argsort()
    tokens, places = tokens[:, order], places[:, order]
    for layer in predictor.layer:
        tokens = layer(tokens, places)[0]
    tokens = predictor.layernorm(tokens)[:, order.argsort()[known.shape[1] :]]
    predicted = predictor.proj(tokens)
    return predicted.to(torch.promote_types(predicted.dtype, torch.float32))


def normalised_targets(features: Tensor) -> Tensor:
    """Layer-normalise targets without weights, as V-JEPA 2's training does; fp32 (or fp64)."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    return F.layer_norm(features, features.shape[-1:])


def token_places(
    part: range, tubelets: int, tokens: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the positions of the known and of the other tokens of a clip."""
    places = torch.arange(tubelets * tokens, device=device)
    known = torch.zeros_like(places, dtype=torch.bool)
    known[part.start * tokens : part.stop * tokens] = True
    return places[known], places[~known]


def build_vjepa2(config: Mapping[str, Any], device: torch.device) -> Any:
    """Build a `VJEPA2Model` with random weights (without values on the meta device).

    Raises:
        RewardError: The configuration is of another model, or invalid.
    """
    ensure_torchvision_importable()
    from transformers import VJEPA2Config, VJEPA2Model

    if config.get("model_type", "vjepa2") != "vjepa2":
        raise RewardError(
            f"the configuration has model_type {config['model_type']!r}; expected vjepa2, such as "
            "facebook/vjepa2-vitl-fpc64-256"
        )
    try:
        with device:
            return VJEPA2Model(VJEPA2Config(**config))
    except Exception as error:  # any: each field is used in a different place
        raise RewardError(
            f"cannot build a V-JEPA 2 from the configuration ({type(error).__name__}: {error}). It "
            "is damaged, or of another version; fetch config.json again from the source of the "
            "weights"
        ) from error


def vjepa2_preprocess(size: int) -> Preprocess:
    """Return the published one: shortest side 8/7 of the crop (292 for 256), bilinear."""
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
        checkpoint: The file `model.safetensors` with a `config.json` in its folder, the folder or
            hub id of both (`facebook/vjepa2-vitl-fpc64-256`), or a file that states its own
            architecture.
        tower_options: Where and how the model runs; the surprise is fp32.
        contexts: Fractions of a clip that are known.
        both_ways: Whether the beginning is also predicted from the end.

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
        recompute_blocks([*model.encoder.layer, *model.predictor.layer])
    preprocess = vjepa2_preprocess(model.config.crop_size)
    if "preprocess" in loaded.metadata:
        preprocess = Preprocess.from_json(loaded.metadata["preprocess"])
    return VJepa2(model.to(tower_options.device), preprocess, contexts, both_ways=both_ways)


def _configuration(loaded: WeightFile) -> Mapping[str, Any]:
    if "architecture" in loaded.metadata:
        return json_object(loaded.metadata["architecture"], f"the architecture in {loaded.path}")
    path = loaded.path.with_name(CONFIG)
    if not path.is_file():
        raise RewardError(
            f"{path} is missing: it states which V-JEPA 2 the weights in its folder are. Fetch it "
            "from their source (hf download ORG/NAME config.json)"
        )
    return json_file(path)

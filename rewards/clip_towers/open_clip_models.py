"""Build open_clip's models by architecture, with the dtype of weights and the preprocessing."""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rewards.clip_towers.tokenizers import import_open_clip
from rewards.core.preprocess import OPENAI_MEAN, OPENAI_STD, Kernel, Preprocess, ResizeMode
from rewards.errors import RewardError

Architecture = Mapping[str, Any]
"""open_clip's model configuration: `embed_dim`, `vision_cfg`, `text_cfg`, `quick_gelu`."""

LOW_PRECISION = (torch.bfloat16, torch.float16)
CONFIG_FILE = "open_clip_config.json"
"""File next to a model's weights on the hub, with its architecture and preprocessing."""

_RESIZE: dict[str, ResizeMode] = {"shortest": "crop", "squash": "squash", "longest": "letterbox"}
_PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode", "fill_color")


def open_clip_config(name: str) -> Architecture:
    """Return open_clip's configuration of a model name.

    Raises:
        RewardError: open_clip does not know the name.
    """
    open_clip = import_open_clip()
    config = open_clip.get_model_config(name)
    if config is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), n=3)
        raise RewardError(
            f"unknown architecture {name!r} of open_clip"
            + (
                f"; did you mean {', '.join(near)}?"
                if near
                else "; `open_clip.list_models()` lists them"
            )
        )
    return dict(config)


def config_beside(path: Path) -> dict[str, Any] | None:
    """Read `model_cfg` and `preprocess_cfg` from the configuration next to a file, if any.

    Raises:
        RewardError: The configuration is damaged.
    """
    place = path.parent / CONFIG_FILE
    if not place.is_file():
        return None
    try:
        config = json.loads(place.read_text(encoding="utf-8"))
        return {"model_cfg": config["model_cfg"], "preprocess_cfg": config["preprocess_cfg"]}
    except (ValueError, KeyError, TypeError) as error:
        raise RewardError(
            f"{place} has no model_cfg and preprocess_cfg ({type(error).__name__}: {error}). "
            "Fetch it again, or remove it and give the judge an architecture"
        ) from error


def image_size(architecture: Architecture) -> int:
    """Return the side of the square that a model sees, in pixels.

    Raises:
        RewardError: It sees a rectangle.
    """
    size = architecture["vision_cfg"].get("image_size", 224)
    if isinstance(size, list | tuple):
        if len(set(size)) != 1:
            raise RewardError(
                f"the architecture has image_size {size}; judges support squares only"
            )
        size = size[0]
    return int(size)


def build_model(
    architecture: Architecture, device: torch.device, dtype: torch.dtype = torch.float32
) -> Any:
    """Build an open_clip model with random weights (without values on the meta device).

    Args:
        architecture: Architecture of a `CLIP`, a `CustomTextCLIP` (`custom_text`, SigLIP among
            them) or a `CoCa` (`multimodal_cfg`).
        device: Device of the weights.
        dtype: Dtype that the weights will be cast to; in bf16 and fp16 layer norms stay fp32.

    Raises:
        RewardError: open_clip cannot build it, or its text tower is one of transformers', which
            needs the hub.
    """
    open_clip = import_open_clip()
    config = dict(architecture)
    if hub_model := config.get("text_cfg", {}).get("hf_model_name"):
        raise RewardError(
            f"this architecture takes its text tower from the hub ({hub_model}); judges support "
            "open_clip's own towers only. Choose an architecture without hf_model_name"
        )
    vision = dict(config.get("vision_cfg", {}))
    if ":" in (elsewhere := str(vision.get("timm_model_name"))):
        raise RewardError(
            f"this architecture takes its image tower from elsewhere ({elsewhere}); judges "
            "support timm's own models only. Choose an architecture without such a name"
        )
    if vision.get("timm_model_pretrained"):  # all weights come from the judge's file: fetch none
        config["vision_cfg"] = {**vision, "timm_model_pretrained": False}
    cast = dtype if dtype in LOW_PRECISION else None  # keeps the layer norms in fp32
    custom = config.pop("custom_text", False)
    if "multimodal_cfg" in config:
        model_class = open_clip.CoCa
    elif custom:
        model_class = open_clip.CustomTextCLIP
    else:
        model_class = open_clip.CLIP
    try:
        with device:
            model = model_class(**config, cast_dtype=cast)
    except (TypeError, KeyError, RuntimeError) as error:
        raise RewardError(f"open_clip cannot build this architecture: {error}") from error
    model.output_dict = True
    return model


def builds_without_values(architecture: Architecture) -> bool:
    """Return whether a model can be built on the meta device and filled from a file.

    A plain `CLIP` has one buffer that is in no file (`restore_causal_mask`); towers of timm compute
    several, so they are built with values.
    """
    plain = not architecture.get("custom_text") and "multimodal_cfg" not in architecture
    return plain and "timm_model_name" not in architecture["vision_cfg"]


def restore_causal_mask(model: Any) -> None:
    """Give a `CLIP` from the meta device the one buffer that is in no file."""
    if model.attn_mask is not None:
        length = model.context_length
        mask = torch.full((length, length), float("-inf")).triu_(1)
        assert model.attn_mask.shape == mask.shape
        model.attn_mask = mask
    left = [n for n, t in [*model.named_parameters(), *model.named_buffers()] if t.is_meta]
    assert not left, f"tensors without values: {left}"


def cast_weights(model: Any, architecture: Architecture, dtype: torch.dtype) -> None:
    """Cast weights in place as open_clip does for its precisions; its layer norms stay fp32."""
    if dtype == torch.float64:
        model.double()
    elif dtype in LOW_PRECISION and not builds_without_values(architecture):
        # open_clip's own cast knows neither timm's layers nor CoCa's pooling queries.
        from open_clip.transformer import LayerNormFp32

        model.to(dtype)
        for module in model.modules():
            if isinstance(module, LayerNormFp32):
                module.float()
    elif dtype in LOW_PRECISION:
        from open_clip.model import convert_weights_to_lp

        convert_weights_to_lp(model, dtype=dtype)


def named_preprocess(name: str, size: int) -> Preprocess:
    """Return the preprocessing with which open_clip publishes a model name.

    If its published weights differ in it (`ViT-H-14`: all but `dfn5b` crop), this warns and uses
    open_clip's default for a file: OpenAI's mean and standard deviation, and a crop.

    Args:
        name: Model name of open_clip.
        size: Side in pixels.
    """
    open_clip = import_open_clip()
    tags = open_clip.list_pretrained_tags_by_model(name)
    specs = {
        tag: preprocess_of(open_clip.get_pretrained_cfg(name, tag), size, f"{name} ({tag})")
        for tag in tags
    }
    if len(set(specs.values())) == 1:
        return next(iter(specs.values()))
    default = preprocess_of({}, size, name)
    others = [tag for tag, spec in specs.items() if spec != default]
    if others:
        warnings.warn(
            f"{name} is published with several preprocessings; using OpenAI's, which is not that "
            f"of {', '.join(others)}. For those, put their {CONFIG_FILE} next to the file",
            stacklevel=2,
        )
    return default


def preprocess_of(config: Mapping[str, Any], size: int, what: str) -> Preprocess:
    """Convert open_clip's `preprocess_cfg`; missing values are OpenAI's.

    Args:
        config: `mean`, `std`, `interpolation`, `resize_mode` and others.
        size: Side in pixels.
        what: Name of the model, for the message.

    Raises:
        RewardError: It needs something that has no differentiable counterpart here.
    """
    given = {key: config[key] for key in _PREPROCESS_KEYS if config.get(key) is not None}
    resize = given.get("resize_mode", "shortest")
    kernel: Kernel = given.get("interpolation", "bicubic")
    if (
        resize not in _RESIZE
        or kernel not in ("bicubic", "bilinear")
        or given.get("fill_color", 0) != 0
    ):
        raise RewardError(
            f"{what} needs its images prepared by {given}; allowed: resize_mode "
            f"{', '.join(_RESIZE)}, interpolation bicubic or bilinear, fill_color 0"
        )
    mean, std = _three(given.get("mean", OPENAI_MEAN)), _three(given.get("std", OPENAI_STD))
    return Preprocess(_RESIZE[resize], size, mean, std, quantised=True, kernel=kernel)


def _three(value: float | list[float] | tuple[float, ...]) -> tuple[float, float, float]:
    numbers = (value,) * 3 if isinstance(value, int | float) else tuple(value)
    first, second, third = (float(number) for number in numbers)
    return first, second, third

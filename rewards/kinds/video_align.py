"""VideoReward of VideoAlign (Liu et al., arXiv 2501.13918): visual, motion and text quality.

A Qwen2-VL reads the clip and one long text. At three special tokens of that text a linear head
gives visual quality (VQ), motion quality (MQ) and text alignment (TA), each standardised by
published constants; the overall score is their sum. The published code goes through video files
and 8 bits; this one has the same arithmetic, the rounding of its resize included, and a gradient.

VQ and MQ precede the prompt in the text and attention is causal: they do not depend on the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rewards.core.base import VideoReward, check_input
from rewards.core.json_text import json_file
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import check_keys, load_weights
from rewards.errors import RewardError
from rewards.qwen.files import (
    EMBEDDING,
    build_qwen_model,
    candidate_folders,
    find_folder,
    load_tokenizer,
    missing_folder,
    read_config,
    read_folder,
)
from rewards.qwen.frames import QwenFrames, frames_of_folder
from rewards.qwen.lora import LoraScale, merged
from rewards.qwen.model import QwenTower
from rewards.qwen.templates import template

AxisName = Literal["overall", "VQ", "MQ", "TA"]
AXES = ("VQ", "MQ", "TA")
TOKENS = tuple(f"<|{axis}_reward|>" for axis in AXES)
CONFIG = "model_config.json"
HEAD = "rm_head.weight"

LEAST_PIXELS = 128 * 28 * 28
"""Smaller frames are enlarged to it, as in the authors' code, whatever the processor sets."""

NORMS = {"VQ": (3.6757, 2.2476), "MQ": (1.1646, 1.3811), "TA": (2.8105, 2.5121)}
"""Mean and standard deviation of the published model's raw scores, if its config has none."""


class VideoAlignReward(VideoReward):
    """Standardised scores at three special tokens.

    Attributes:
        tower: The model, without a language head.
        head: fp32, `(1 or 3, d)`, no bias.
        norms: Mean and standard deviation by axis.
        axis: Axis of the score: one of the three, or `overall`, their sum.
    """

    name = "video_align"

    def __init__(
        self,
        tower: QwenTower,
        head: Tensor,
        norms: Mapping[str, tuple[float, float]],
        axis: AxisName = "overall",
    ) -> None:
        if axis != "overall" and axis not in AXES:
            raise RewardError(f"axis is {axis!r}; allowed: overall, {', '.join(AXES)}")
        self.tower = tower
        self.device = tower.device
        self.head = _head(head.to(tower.device))
        self.norms = dict(norms)
        self.axis = axis
        self.reads_text = axis in ("overall", "TA")
        self._template = template("video_align")
        self._tokens = [tower.tokenizer.convert_tokens_to_ids(token) for token in TOKENS]

    @property
    def modules(self) -> list[nn.Module]:
        """The model and its head."""
        return [self.tower.model, self.head]

    def at_rate(self, fps: float) -> VideoAlignReward:
        """Return this judge for clips of `fps` frames per second."""
        other = copy(self)
        other.tower = self.tower.at_rate(fps)
        return other

    def axes(self, clips: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score all axes: `(b, f, 3, H, W)` in [0, 1] and b prompts -> `(b, 3)`: VQ, MQ, TA."""
        for prompt in prompts:
            self.tower.check_plain(prompt)
        texts = [[self._template.replace("{text_prompt}", prompt)] for prompt in prompts]
        reading = self.tower.read(clips, texts)
        states = torch.stack([reading.at(token) for token in self._tokens], dim=1)
        scores = self.head(states.to(self.head.weight.dtype))
        # With one output, the three tokens share it; with three, each has its own.
        raw = scores[..., 0] if scores.shape[-1] == 1 else scores.diagonal(dim1=1, dim2=2)
        mean, deviation = raw.new_tensor([self.norms[axis] for axis in AXES]).unbind(dim=1)
        return (raw - mean) / deviation

    def per_axis(self, frames: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Score each axis: `(b, f, 3, H, W)` and b prompts -> `(b,)` by name.

        Raises:
            RewardError: The input cannot be scored.
        """
        check_input(frames, prompts)
        scores = self.axes(frames.to(self.device), prompts)
        return dict(zip(AXES, scores.unbind(dim=1), strict=True))

    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """`(b, f, 3, H, W)` in [0, 1] and b prompts -> `(b,)` fp32."""
        scores = self.axes(frames, prompts)
        return scores.sum(dim=1) if self.axis == "overall" else scores[:, AXES.index(self.axis)]


def _head(weight: Tensor) -> nn.Linear:
    outputs, width = weight.shape
    head = nn.Linear(width, outputs, bias=False, device="meta")
    head.weight = nn.Parameter(weight.float(), requires_grad=False)
    return head.eval()


@dataclass(frozen=True)
class VideoAlignConfig:
    """The part of `model_config.json` that scoring needs.

    Attributes:
        base: Name of the base Qwen2-VL.
        outputs: Number of outputs of the head, 1 or 3.
        lora: Scale of the adapter; `None` for a fully trained model.
        norms: Mean and standard deviation by axis.
        frames: Fields of `QwenFrames`.
    """

    base: str
    outputs: int
    lora: LoraScale | None
    norms: dict[str, tuple[float, float]]
    frames: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> VideoAlignConfig:
        """Read the file.

        Raises:
            RewardError: A field is missing, or the model needs other texts or frames.
        """
        said = json_file(path)
        try:
            data, model, lora = (
                said[key] for key in ("data_config", "model_config", "peft_lora_config")
            )
            norms = said.get("inference_config")
            norms = _PUBLISHED_NORMS if norms is None else norms
            _check_fields(path, data=data, model=model, lora=lora, norms=norms)
            required = {
                "data_config.prompt_template_type": (
                    data["prompt_template_type"],
                    ("detailed_special",),
                ),
                "data_config.sample_type": (data.get("sample_type", "uniform"), ("uniform",)),
                "model_config.use_special_tokens": (model["use_special_tokens"], (True,)),
                "model_config.output_dim": (model["output_dim"], (1, len(AXES))),
            }
            for name, (value, allowed) in required.items():
                if value not in allowed:
                    raise RewardError(
                        f"{path}: {name} is {value!r}; allowed: "
                        f"{' or '.join(map(repr, allowed))}. Other VideoAligns need other texts or "
                        "other frames; use one that was trained like the published "
                        "KwaiVGI/VideoReward"
                    )
            scale = LoraScale(
                lora["lora_r"], lora["lora_alpha"], bool(lora.get("use_rslora", False))
            )
            return cls(
                base=model["model_name_or_path"],
                outputs=model["output_dim"],
                lora=scale if lora["lora_enable"] else None,
                norms={axis: (norms[f"{axis}_mean"], norms[f"{axis}_std"]) for axis in AXES},
                frames={
                    "count": data.get("num_frames"),
                    "fps": None if data.get("num_frames") is not None else data["fps"],
                    "max_pixels": data["max_frame_pixels"],
                    "min_pixels": data.get("min_frame_pixels") or LEAST_PIXELS,
                },
            )
        except KeyError as error:
            raise RewardError(
                f"{path} lacks {error}; it needs data_config, model_config and peft_lora_config as "
                "VideoAlign's training writes them"
            ) from error


_PUBLISHED_NORMS = {
    f"{axis}_{what}": value
    for axis, norm in NORMS.items()
    for what, value in zip(("mean", "std"), norm, strict=True)
}
"""`NORMS` in the form of `inference_config`, for a config without it."""

_MAY_BE_NULL = ("num_frames", "fps", "min_frame_pixels")


def _check_fields(path: Path, **sections: Any) -> None:
    """Check that sections contain named values, and that values are numbers.

    Raises:
        RewardError: One is not; the message names the first.
    """
    for section, values in sections.items():
        if not isinstance(values, Mapping):
            raise RewardError(
                f"{path}: the section for {section} contains {values!r} instead of named values; "
                "it is damaged or belongs to something else. Fetch it again"
            )
    numbers = {key: sections["lora"][key] for key in ("lora_r", "lora_alpha")}
    numbers |= {"max_frame_pixels": sections["data"]["max_frame_pixels"]}
    numbers |= {key: sections["data"].get(key) for key in _MAY_BE_NULL}
    numbers |= {key: sections["norms"][key] for key in _PUBLISHED_NORMS}
    for key, value in numbers.items():
        if value is None and key in _MAY_BE_NULL:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or (key.endswith("_std") and not value > 0):
            raise RewardError(
                f"{path}: {key} is {value!r}; expected a number{' above 0' * number}. The file is "
                "damaged; fetch it again"
            )


def load_video_align(
    checkpoint: str | Path,
    tower_options: TowerOptions,
    *,
    axis: AxisName = "overall",
    base: str | Path | None = None,
    count: int | None = None,
    fps: float | None = None,
    clip_fps: float | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> VideoAlignReward:
    """Load a VideoAlign in its published layout.

    `model_config.json` and the newest `checkpoint-N/` in its folder, which contains either
    `model.pth` (the whole model) or `adapter_model.safetensors` and `non_lora_state_dict.pth`.
    Config and tokenizer come from the base, and so do the weights below an adapter. The many
    parameters are keys of the recipe.

    Args:
        checkpoint: Folder, or hub id in the cache (`KwaiVGI/VideoReward`).
        tower_options: Where and how the model runs; the head is fp32.
        axis: `overall`, `VQ`, `MQ` or `TA`.
        base: Base Qwen2-VL; by default the one that the config names.
        count: Number of frames to look at, instead of the config's.
        fps: Frames per second to look at, instead of the config's.
        clip_fps: Frame rate of the clips; the published model looks at 2 frames per second.
        min_pixels: Smallest number of pixels of a frame as the model sees it.
        max_pixels: Largest number of pixels of a frame, instead of the config's.

    Raises:
        RewardError: A file is missing, damaged or of another model.
    """
    root = _find_root(checkpoint, tower_options.folder)
    config = VideoAlignConfig.read(root / CONFIG)
    below = find_folder(base or config.base, tower_options.folder)
    frames = _frames(below.weights, config, (count, fps, clip_fps, min_pixels, max_pixels))
    others, path = _read_checkpoint(root)
    start = {} if path.name == "model.pth" else read_folder(below.weights)
    state = merged(start, others, config.lora, path)
    tokenizer = load_tokenizer(below.tokenizer, TOKENS)
    qwen_config = read_config(below.weights, _rows(state, tokenizer, path))
    width = qwen_config.text_config.hidden_size
    head = {HEAD: state.pop(HEAD)} if HEAD in state else {}
    check_keys({HEAD: torch.Size([config.outputs, width])}, head, "the head of VideoAlign", path)
    model = build_qwen_model(qwen_config, state, path, tower_options, language_head=False)
    tower = QwenTower(model, tokenizer, frames, positions="plain")
    if tower_options.gradient_checkpointing:
        tower.checkpoint_gradients()
    return VideoAlignReward(tower, head[HEAD], config.norms, axis)


def _find_root(checkpoint: str | Path, folder: Path | None) -> Path:
    for place in candidate_folders(checkpoint, folder, CONFIG):
        if (place / CONFIG).is_file():
            return place
    raise RewardError(missing_folder(checkpoint, folder, f"VideoAlign: a folder with {CONFIG}"))


def _frames(weights: Path, config: VideoAlignConfig, given: tuple[Any, ...]) -> QwenFrames:
    names = ("count", "fps", "clip_fps", "min_pixels", "max_pixels")
    options = {name: value for name, value in zip(names, given, strict=True) if value is not None}
    # The authors resize the whole clip in bytes by one call of torchvision, which rounds once.
    fields = {**config.frames, "quantised": True, "passes": 1}
    if "count" in options or "fps" in options:  # either one replaces the config's choice
        fields |= {"count": None, "fps": None}
    return frames_of_folder(weights, {**fields, **options})


def _read_checkpoint(root: Path) -> tuple[dict[str, Tensor], Path]:
    steps = [p for p in root.glob("checkpoint-*") if p.name.rpartition("-")[2].isdigit()]
    newest = max(steps, key=lambda p: int(p.name.rpartition("-")[2]), default=root)
    whole, adapter = newest / "model.pth", newest / "adapter_model.safetensors"
    if whole.is_file():
        return load_weights(whole).state, whole
    rest = newest / "non_lora_state_dict.pth"
    if not adapter.is_file() or not rest.is_file():
        raise RewardError(
            f"{newest} contains neither model.pth nor adapter_model.safetensors with "
            "non_lora_state_dict.pth. Fetch the whole repository again: hf download "
            "KwaiVGI/VideoReward"
        )
    return load_weights(adapter).state | load_weights(rest).state, adapter


def _rows(state: Mapping[str, Tensor], tokenizer: Any, path: Path) -> int:
    """Return the number of rows of the embedding table, at least one for every token."""
    if EMBEDDING not in state or state[EMBEDDING].ndim == 0:
        raise RewardError(
            f"{path} lacks {EMBEDDING}, which every Qwen2-VL has. Give the folder of a whole "
            "Qwen2-VL as base, or fetch this one again if it is truncated"
        )
    rows = state[EMBEDDING].shape[0]
    if rows < len(tokenizer):
        raise RewardError(
            f"{path} has {rows:,} embeddings for {len(tokenizer):,} tokens, those of the judge "
            "included. Give the base that it was trained on; its own embeddings, which belong in "
            "non_lora_state_dict.pth, may be missing too"
        )
    return rows

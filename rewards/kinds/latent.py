"""Judges of noisy latents: no VAE, no frames, any noise level.

The interface is that of process reward models on latents (PRFL, arXiv 2511.21541): a sampler's
state between two steps is scored as it is. Here the model is a separate small CLIP rather than the
generator's first blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rewards.clip_towers.tokenizers import build_tokenizer
from rewards.clip_towers.tower import TextTower, unit_length
from rewards.core.base import check_prompts
from rewards.core.json_text import json_object
from rewards.core.locate import resolve_file
from rewards.core.weight_file import WeightFile, check_keys, load_weights, verify_sha256
from rewards.errors import RewardError
from rewards.networks.latent_tower import LatentTextModel, build_latent_model


@runtime_checkable
class LatentReward(Protocol):
    """Any object that scores noisy latents."""

    name: str

    def __call__(self, latents: Tensor, sigma: Tensor | float, prompts: Sequence[str]) -> Tensor:
        """Score latents.

        Args:
            latents: `(b, 16, t, h, w)` fp32, `(1 - sigma) * clip + sigma * noise` in the
                generator's normalised latent space: its sampler's state between steps.
            sigma: Noise level in [0, 1], one for all or `(b,)`.
            prompts: b texts.

        Returns:
            `(b,)` fp32, higher is better, differentiable in `latents`.
        """
        ...


class LatentClip:
    """The cosine of the features of noisy latents and of a prompt, in [-1, 1].

    Attributes:
        name: Name in metrics.
        text: The text tower with its cache; its `model` contains both towers.
        dtype: Dtype of the weights; features are fp32 before the dot product.
    """

    name = "latent"

    def __init__(self, model: LatentTextModel, text: TextTower, dtype: torch.dtype) -> None:
        self.model = model
        self.text = text
        self.dtype = dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights; latents are moved there."""
        return self.text.device

    @property
    def modules(self) -> list[nn.Module]:
        """The frozen model with both towers."""
        return [self.model]

    @property
    def context_length(self) -> int:
        """Number of tokens of a text that it reads."""
        return self.text.context_length

    def truncated(self, prompts: Sequence[str]) -> list[int]:
        """Return the positions of prompts that are cut off."""
        return self.text.truncated(prompts)

    def __call__(self, latents: Tensor, sigma: Tensor | float, prompts: Sequence[str]) -> Tensor:
        """Score latents; see `LatentReward`.

        Raises:
            RewardError: The input cannot be scored (`check_latents`).
        """
        tower = self.model.latent
        check_latents(latents, sigma, prompts, tower.channels, tower.multiple)
        exact = torch.promote_types(self.dtype, torch.float32)
        levels = torch.as_tensor(sigma).to(self.device, exact).expand(len(latents))
        features = self.model.encode_latents(latents.to(self.device, self.dtype), levels)
        return (unit_length(features) * self.text.text_features(prompts)).sum(dim=-1)


def check_latents(
    latents: Tensor, sigma: Tensor | float, prompts: Sequence[str], channels: int, multiple: int
) -> None:
    """Check that a judge of latents can score the input.

    Args:
        latents: `(b, channels, t, h, w)`, fp32 (fp64 for gradient checks), finite.
        sigma: Noise level in [0, 1], one number or `(b,)`.
        prompts: b strings, none of them empty.
        channels: Channels that the judge expects.
        multiple: Number that height and width must be multiples of.

    Raises:
        RewardError: It cannot; the message says why.
    """
    shape = tuple(latents.shape)
    if latents.ndim != 5 or shape[1] != channels or 0 in shape:
        raise RewardError(
            f"latents have shape {shape}; expected (batch, {channels}, time, height, width). Use "
            "the judge that was trained on this generator's VAE"
        )
    if shape[3] % multiple or shape[4] % multiple:
        raise RewardError(
            f"latents are {shape[3]} x {shape[4]}; height and width must be multiples of "
            f"{multiple}, so those of the clip multiples of {8 * multiple} pixels"
        )
    if latents.dtype not in (torch.float32, torch.float64):
        raise RewardError(
            f"latents are {latents.dtype}; expected float32, the sampler's dtype. Call .float()"
        )
    if not bool(torch.isfinite(latents.detach()).all()):
        raise RewardError(
            "latents contain NaN or infinity; they are wrong before the judge sees them"
        )
    check_prompts(prompts, shape[0])
    levels = torch.as_tensor(sigma).detach()
    if levels.shape not in {torch.Size([]), torch.Size([shape[0]])}:
        raise RewardError(
            f"sigma has shape {tuple(levels.shape)} for {shape[0]} clips; give one number, or one "
            "per clip"
        )
    if not bool(((levels >= 0) & (levels <= 1)).all()):
        raise RewardError(f"sigma is {levels.tolist()}; allowed: 0 to 1. Divide a timestep by 1000")


def load_latent_reward(
    checkpoint: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    name: str | None = None,
    folder: Path | None = None,
    sha256: str | None = None,
) -> LatentClip:
    """Load a frozen judge of latents.

    Args:
        checkpoint: A shipped name (`tiny/latent-clip.safetensors`), a path, or a hub id
            (`org/repo/file`).
        device: Device that it runs on.
        dtype: Dtype of the weights; features are fp32 before the dot product.
        name: Name in metrics; `latent` if not given.
        folder: Folder that relative paths start from; the working directory if not given.
        sha256: Expected hash of the file, 64 hexadecimal digits, checked before it is read.

    Returns:
        The judge, in evaluation mode, without trainable parameters.

    Raises:
        RewardError: The file is missing, damaged or of another kind of judge.
    """
    if sha256 is not None:
        verify_sha256(resolve_file(checkpoint, folder), sha256)
    loaded = load_weights(checkpoint, folder)
    if loaded.metadata.get("kind") != "latent":
        kind = loaded.metadata.get("kind")
        raise RewardError(
            f"{loaded.path} {f'has kind {kind!r}' if kind else 'states no kind'} in its metadata; "
            "a judge of latents has kind latent. Give tiny/latent-clip.safetensors, or a file that "
            "`reward-tuning pretrain tiny --only latent-clip` made; load a judge of frames with "
            "rewards.load_reward"
        )
    judge = _build(loaded, torch.device(device), dtype)
    judge.name = name or judge.name
    return judge


def _build(checkpoint: WeightFile, device: torch.device, dtype: torch.dtype) -> LatentClip:
    for entry in ("architecture", "tokenizer"):
        if entry not in checkpoint.metadata:
            raise RewardError(
                f"{checkpoint.path} does not state its {entry}; make it again with reward-tuning "
                "pretrain tiny --only latent-clip"
            )
    architecture = json_object(
        checkpoint.metadata["architecture"], f"the architecture in {checkpoint.path}"
    )
    with torch.random.fork_rng(devices=[]):  # the random weights are replaced below
        model = build_latent_model(architecture)
    expected = {key: tensor.shape for key, tensor in model.state_dict().items()}
    what = f"its own architecture (embed_dim {architecture['embed_dim']})"
    check_keys(expected, checkpoint.state, what, checkpoint.path)
    model.load_state_dict(checkpoint.state)
    model.to(device, dtype)
    merges = checkpoint.path.parent / checkpoint.metadata["tokenizer"]
    text = TextTower(model, build_tokenizer(architecture, merges))
    return LatentClip(model, text, dtype)

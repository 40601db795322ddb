"""Files of small decoders: written by their training, found by the VAE that they stand in for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from base_model.errors import GeneratorError
from base_model.files.reproducible import save_reproducibly
from base_model.files.shipped import WEIGHTS
from base_model.networks.small_decoder import SmallDecoder, SmallDecoderConfig, vae_fingerprint

KIND = "small-decoder"
SHIPPED = WEIGHTS / "small_decoders"
TRAIN_ONE = "reward-tuning pretrain small-decoder --recipe RECIPE"


def write_small_decoder(
    path: Path, decoder: SmallDecoder, *, fingerprint: str, command: str
) -> None:
    """Write a small decoder in fp16, atomically.

    Args:
        path: File; an existing one is replaced.
        decoder: The network.
        fingerprint: `vae_fingerprint` of the VAE that it was distilled from.
        command: Command that made the weights.
    """
    metadata = {
        "format": "pt",
        "kind": KIND,
        "config": json.dumps(asdict(decoder.config)),
        "vae": fingerprint,
        "command": command,
    }
    state = {name: tensor.half() for name, tensor in decoder.state_dict().items()}
    save_reproducibly(path, state, metadata)


def find_small_decoder(path: Path | None, vae: Any) -> Path:
    """Return the file of the small decoder of a VAE.

    Args:
        path: Its file; None looks for one in the package.
        vae: The VAE whose decoder it stands in for.

    Raises:
        GeneratorError: There is none in the package, the file is no small decoder, or it was
            distilled from another VAE.
    """
    fingerprint = vae_fingerprint(vae)
    if path is None:
        return _shipped(fingerprint)
    metadata = _metadata(path)
    if metadata["vae"] != fingerprint:
        raise GeneratorError(
            f"{path} was distilled from another VAE: it records sha256 {metadata['vae'][:12]}, and "
            f"this VAE's decoder has {fingerprint[:12]}. Its frames and gradients would be those "
            f"of the other one: use the small decoder of this VAE, or train one: {TRAIN_ONE}"
        )
    return path


def load_small_decoder(
    path: Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> SmallDecoder:
    """Load a small decoder, frozen and in eval mode.

    Args:
        path: Its file, as `find_small_decoder` returns it.
        dtype: Dtype of the weights.
        device: Device of the weights.

    Raises:
        GeneratorError: The file is no small decoder.
    """
    decoder = SmallDecoder(_config(path, _metadata(path)))
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        decoder.load_state_dict(state)
    except (RuntimeError, SafetensorError) as error:
        raise GeneratorError(
            f"{path}: its tensors do not fit the architecture that it records ({error}). Train it "
            f"again: {TRAIN_ONE}"
        ) from error
    return decoder.to(device, dtype).requires_grad_(False).eval()


def _shipped(fingerprint: str) -> Path:
    paths = sorted(SHIPPED.glob("*.safetensors"))
    for path in paths:
        if _metadata(path)["vae"] == fingerprint:
            return path
    names = ", ".join(path.stem for path in paths) or "none"
    raise GeneratorError(
        f"The package has no small decoder for this VAE (sha256 {fingerprint[:12]} of its decoder; "
        f"shipped are those of: {names}). Train one with `{TRAIN_ONE}` and name its file in "
        "train.small_decoder, or decode with the VAE"
    )


def _metadata(path: Path) -> Mapping[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise GeneratorError(
            f"{path} cannot be read as a small decoder: {error}. Name a .safetensors file that "
            f"`{TRAIN_ONE}` has written"
        ) from error
    if metadata.get("kind") != KIND or "vae" not in metadata:
        raise GeneratorError(
            f"{path} is no small decoder (its header has kind {metadata.get('kind')!r}). Name a "
            f"file that `{TRAIN_ONE}` has written"
        )
    return metadata


def _config(path: Path, metadata: Mapping[str, str]) -> SmallDecoderConfig:
    try:
        values: dict[str, Any] = json.loads(metadata["config"])
        values |= {name: tuple(values[name]) for name in ("widths", "blocks")}
        return SmallDecoderConfig(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise GeneratorError(
            f"{path}: its header describes no small decoder: {error!r}. Train it again: {TRAIN_ONE}"
        ) from error

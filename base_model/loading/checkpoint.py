"""Load the modules of a checkpoint in the original or the diffusers layout, from disk or hub.

Folders: `transformer/ vae/ text_encoder/ tokenizer/ scheduler/`, each with its config. The layout
is detected from the names of the transformer's weights. Weights go straight to their dtype and
device, into modules built on the meta device, so that a 12B model is never in memory twice.
"""

from pathlib import Path
from typing import Any

import torch

from base_model.core.family import FAMILY
from base_model.errors import GeneratorError
from base_model.files.hub import download, parts_of
from base_model.files.shipped import resolve_checkpoint
from base_model.files.weight_files import (
    WeightFiles,
    check_fit,
    find_weights,
    load_strictly,
    shorten,
)
from base_model.loading.delta import assembled, base_of, is_delta
from base_model.loading.key_map import layout_of, to_diffusers
from base_model.loading.model_configs import check_scheduler, transformer_arguments, vae_arguments
from base_model.loading.name_prefixes import plain_names
from base_model.loading.text_encoder_files import check_text_encoder, load_text_encoder
from base_model.memory.block_offload import stream_blocks
from base_model.memory.modes import MODES, Memory
from base_model.memory.quantise import Quantise, quantised, require
from base_model.memory.resting import block_home

__all__ = [
    "check_text_encoder",
    "empty_model",
    "load_text_encoder",
    "load_transformer",
    "load_vae",
    "local_folder",
    "refuse_attention",
]


def local_folder(checkpoint: Path | str, *, text_encoder: bool = True) -> Path:
    """Return the checkpoint on disk; download a hub id and assemble a delta in the cache first.

    Args:
        checkpoint: A folder, or a hub id ("org/name" or "org/name@revision") as a string.
        text_encoder: Require the text encoder and the tokenizer, too.

    Returns:
        A folder with all required parts.

    Raises:
        GeneratorError: A part is missing, or the download fails.
    """
    parts = ["transformer", "vae"] + (["text_encoder", "tokenizer"] if text_encoder else [])
    folder = checkpoint if isinstance(checkpoint, Path) else download(checkpoint, parts_of(parts))
    if is_delta(folder):
        folder = assembled(folder, local_folder(resolve_checkpoint(base_of(folder))))
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        raise GeneratorError(
            f"{folder} is no complete checkpoint: it lacks {shorten([f'{m}/' for m in missing])}; "
            f"it holds {shorten(found) or 'nothing'}. Give a folder with {'/, '.join(parts)}/."
        )
    check_scheduler(folder)
    return folder


def load_transformer(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    memory: Memory = "resident",
    quantise: Quantise | None = None,
) -> Any:
    """Load `folder/transformer` (either layout), frozen, in eval mode, not yet corrected.

    Args:
        folder: Folder of the checkpoint.
        dtype: Dtype of the weights.
        device: Device on which the weights are used.
        memory: Memory mode (`base_model.memory.modes`). Resting blocks are never on the device
            together.
        quantise: Storage of the linear layers of the blocks (`base_model.memory.quantise`); each
            is packed on the device as it is read.

    Raises:
        GeneratorError: Config or weights are not those of a V5.1 transformer, or cannot be
            quantised here.
    """
    from diffusers import EasyAnimateTransformer3DModel

    part = folder / "transformer"
    arguments = transformer_arguments(part, EasyAnimateTransformer3DModel)
    weights = find_weights(part)
    rename = plain_names(weights, FAMILY.transformer_anchor)
    if layout_of(rename.values()) == "original":
        rename = {name: to_diffusers(plain) for name, plain in rename.items()}
    if quantise is not None:
        require(quantise, device)
    model = empty_model(EasyAnimateTransformer3DModel, arguments)
    check_fit(model, weights, rename=rename)
    state = {}
    for file_name, tensor in weights.read(dtype, "cpu"):
        name = rename[file_name]
        home = block_home(memory, name, device)
        if (
            quantise is not None
            and name.startswith(FAMILY.block_prefix)
            and quantised(model, name, tensor.to(device), quantise, home)
        ):
            continue
        state[name] = tensor.to(home)
    model.load_state_dict(state, strict=True, assign=True)
    model = model.requires_grad_(False).eval()
    if MODES[memory].blocks_rest:
        stream_blocks(model, torch.device(device))
    return model


def load_vae(
    folder: Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Any:
    """Load `folder/vae`, frozen, in eval mode.

    Raises:
        GeneratorError: Config or weights are not those of a V5.1 VAE.
    """
    from diffusers import AutoencoderKLMagvit

    part = folder / "vae"
    weights = find_weights(part)
    rename = plain_names(weights, FAMILY.vae_anchor)
    refuse_attention(weights)
    model = empty_model(AutoencoderKLMagvit, vae_arguments(part, AutoencoderKLMagvit))
    load_strictly(model, weights, rename=rename, dtype=dtype, device=device)
    return model.requires_grad_(False).eval()


def refuse_attention(weights: WeightFiles) -> None:
    """Refuse a VAE whose middle block has attention, such as EasyAnimateV5's.

    Raises:
        GeneratorError: There are such tensors.
    """
    attention = sorted(name for name in weights.files if ".mid_block.attentions." in f".{name}")
    if attention:
        raise GeneratorError(
            f"{weights.folder}: the VAE has {len(attention)} mid-block attention tensors "
            f"({shorten(attention)}), which diffusers' AutoencoderKLMagvit does not compute. It "
            "is the VAE of EasyAnimateV5; use the VAE of V5.1."
        )


def empty_model(model_class: Any, arguments: dict[str, Any]) -> Any:
    """Build a model on the meta device: shapes without memory.

    Raises:
        GeneratorError: The arguments, which come from a config.json, describe no network.
    """
    try:
        with torch.device("meta"):
            return model_class(**arguments)
    except (
        TypeError,
        ValueError,
        ArithmeticError,
        LookupError,
        RuntimeError,
        UnboundLocalError,  # raised by diffusers for an unknown activation_fn
    ) as error:
        raise GeneratorError(
            f"config.json describes no {model_class.__name__}: {error}. Copy the config.json of "
            "the checkpoint the weights come from."
        ) from error

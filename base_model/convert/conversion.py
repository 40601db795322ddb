"""Convert a checkpoint folder from one layout to the other, tensor by tensor.

Everything is checked before anything is written: both configs, the scheduler, and the name and
shape of every weight. The new folder is written under a temporary name and renamed when it is
complete.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from base_model.convert.weights import Change, PlannedWeights, planned, write_weights
from base_model.core.family import FAMILY
from base_model.errors import GeneratorError
from base_model.files.weight_files import check_fit, find_weights, shorten
from base_model.loading.checkpoint import (
    check_text_encoder,
    empty_model,
    local_folder,
    refuse_attention,
)
from base_model.loading.config_conversion import converted_texts
from base_model.loading.delta import is_delta
from base_model.loading.key_map import Layout, layout_of, to_diffusers, to_original
from base_model.loading.model_configs import transformer_arguments, vae_arguments
from base_model.loading.name_prefixes import leading_wrappers, plain_names
from base_model.loading.text_encoder_files import newer_than_easyanimate

Progress = Callable[[str, int, int], None]
"""Callback, called with the current file, the bytes done and the bytes in all."""

# Files that are copied unchanged; never code, never pickles.
_COPIED = (".json", ".safetensors", ".txt", ".jinja", ".md", ".model")
_COPIED_NAMES = ("LICENSE", "NOTICE")
_BLOCK = 1 << 24  # bytes copied at a time: no file lies in memory as a whole


@dataclass(frozen=True)
class Converted:
    """Result of a conversion.

    Attributes:
        folder: Folder of the new checkpoint.
        before: Layout of the source.
        layout: Layout of the new checkpoint.
        tensors: Number of tensors in transformer and VAE.
        nbytes: Bytes written.
        left_out: Names in the source that are no part of a checkpoint and were not copied.
        notes: Environments that cannot open the new checkpoint, one line each.
    """

    folder: Path
    before: Layout
    layout: Layout
    tensors: int
    nbytes: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...] = ()


def convert_checkpoint(
    source: Path | str,
    target: Path,
    layout: Layout,
    *,
    dtype: torch.dtype | None = None,
    max_shard_size: str | None = None,
    progress: Progress = lambda file, done, total: None,
    change: Change | None = None,
    link: bool = False,
) -> Converted:
    """Write a checkpoint in a layout.

    Without `dtype` every tensor keeps its bytes, and converting back restores the source's tensors
    and configs to the byte (`config.*.json` keeps what one layout cannot express). Text encoder,
    tokenizer and scheduler are the same in both layouts and are copied.

    Args:
        source: A complete checkpoint in either layout, or a delta (such as the shipped
            `tiny-inpaint`), which is assembled: a folder, or a hub id ("org/name").
        target: New folder; it must not exist.
        layout: Layout of the result.
        dtype: Dtype of the floating tensors of transformer and VAE; None keeps theirs.
        max_shard_size: Largest size of one weight file, such as "5GB"; None writes single files,
            like the published checkpoints.
        progress: Callback for progress.
        change: Change of the transformer's weights; None keeps them.
        link: Make hard links to the weights of the text encoder, up to 17 GB, where source and
            target are on one file system; other files are always copied.

    Returns:
        A summary of the conversion.

    Raises:
        GeneratorError: The source is no complete EasyAnimateV5.1 checkpoint (the message names
            missing, unexpected and V5 tensors), the target exists, the source has this layout
            already, or the disk is full; no files are left behind.
    """
    if target.exists() or target.is_symlink():
        raise GeneratorError(f"{target} already exists. Choose another folder, or remove it first.")
    folder = local_folder(source)
    if not (folder / "scheduler" / "scheduler_config.json").is_file():
        raise GeneratorError(
            f"{folder} has no scheduler/scheduler_config.json, which distinguishes V5.1 from V5. "
            "Download or copy the whole checkpoint again."
        )
    before, weights, in_channels = _checked(folder, layout, dtype, max_shard_size)
    unchanged = before == layout and dtype is None and max_shard_size is None
    if unchanged and change is None and not (isinstance(source, Path) and is_delta(source)):
        raise GeneratorError(
            f"{folder} is already in the {layout} layout. Copy the folder, or request another "
            "dtype or shard size."
        )
    copies = _copies(folder)
    total = sum(w.nbytes for w in weights) + sum(size for _, size in copies)
    texts = converted_texts(folder, before, layout, in_channels)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        disk = target.parent.stat().st_dev
        saved = sum(
            size
            for name, size in copies
            if link and _is_weight(name) and (folder / name).stat().st_dev == disk
        )
        _check_space(target.parent, total - saved)
        temporary.mkdir()
        done = _Done(total, progress)
        for component in weights:
            changed = change if component.part == "transformer" else None
            write_weights(component, temporary / component.part, done, changed)
        for name, size in copies:
            if link and _is_weight(name) and _linked(folder / name, temporary / name):
                done(name, size)
            else:
                _copy(folder / name, temporary / name, done)
        for name, text in texts.items():
            (temporary / name).write_bytes(text.encode())
        temporary.rename(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise GeneratorError(
            f"{target} could not be written: {reason}. No files are left behind; free some space "
            "or choose another place."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    names = {Path(name).parts[0] for name, _ in copies}
    names |= {"transformer", "vae", "model_index.json", *texts}
    left_out = tuple(sorted(path.name for path in folder.iterdir() if path.name not in names))
    tensors = sum(len(w.names) for w in weights)
    notes = newer_than_easyanimate(folder) if layout == "original" else ()
    return Converted(target, before, layout, tensors, total, left_out, notes)


def _checked(
    folder: Path, layout: Layout, dtype: torch.dtype | None, max_shard_size: str | None
) -> tuple[Layout, list[PlannedWeights], int]:
    """Return the source's layout, the plan of the new weights, and the input channels."""
    from diffusers import AutoencoderKLMagvit, EasyAnimateTransformer3DModel

    transformer, vae = find_weights(folder / "transformer"), find_weights(folder / "vae")
    refuse_attention(vae)
    text = check_text_encoder(folder / "text_encoder")
    if wrappers := leading_wrappers(text.files):
        raise GeneratorError(
            f"{text.folder}: the names of the tensors have the prefix {wrappers!r} of a wrapper, "
            "and a text encoder is copied unchanged. Save it again without the wrapper."
        )
    arguments = transformer_arguments(folder / "transformer", EasyAnimateTransformer3DModel)
    plain, vae_plain = (
        plain_names(transformer, FAMILY.transformer_anchor),
        plain_names(vae, FAMILY.vae_anchor),
    )
    model = empty_model(EasyAnimateTransformer3DModel, arguments)
    check_fit(model, transformer, rename={old: to_diffusers(name) for old, name in plain.items()})
    model = empty_model(AutoencoderKLMagvit, vae_arguments(folder / "vae", AutoencoderKLMagvit))
    check_fit(model, vae, rename=vae_plain)
    rename = to_diffusers if layout == "diffusers" else to_original
    names = {rename(name): old for old, name in plain.items()}
    weights = [
        planned("transformer", transformer, names, dtype, max_shard_size),
        planned("vae", vae, {new: old for old, new in vae_plain.items()}, dtype, max_shard_size),
    ]
    return layout_of(plain.values()), weights, arguments["in_channels"]


class _Done:
    """Count bytes and report them."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.bytes, self.total, self._progress = 0, total, progress

    def __call__(self, file: str, count: int) -> None:
        self.bytes += count
        self._progress(file, self.bytes, self.total)


def _copies(folder: Path) -> list[tuple[str, int]]:
    """Return the files to copy, with their sizes: text encoder, tokenizer, scheduler."""
    found: list[Path] = []
    for part in ("text_encoder", "tokenizer", "scheduler"):
        found += sorted(path for path in (folder / part).rglob("*") if path.is_file())
    found += sorted(path for path in folder.iterdir() if path.is_file())
    names = [path.relative_to(folder) for path in found]
    return [
        (str(name), (folder / name).stat().st_size)
        for name in names
        if (name.suffix in _COPIED or name.name in _COPIED_NAMES)
        and not (len(name.parts) == 1 and name.name.startswith("model_index."))
    ]


def _copy(source: Path, target: Path, done: _Done) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shown = f"{target.parent.name}/{target.name}"
    with source.open("rb") as reading, target.open("xb") as writing:
        while block := reading.read(_BLOCK):
            writing.write(block)
            done(shown, len(block))
        writing.flush()
        os.fsync(writing.fileno())


def _is_weight(name: str) -> bool:
    """Return whether a file may be linked: nobody edits it in place, as a config."""
    return name.endswith(".safetensors")


def _linked(source: Path, target: Path) -> bool:
    """Make a hard link; return whether the file system could."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)  # the hub's cache holds symbolic links
    except OSError:  # another file system, or one without hard links
        return False
    return True


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise GeneratorError(
            f"The new checkpoint needs {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB "
            "free. Free some space or choose another place."
        )


def describe_left_out(converted: Converted) -> str:
    """Describe in one line what was not copied; empty if everything was."""
    if not converted.left_out:
        return ""
    return f"not copied, because no part of a checkpoint: {shorten(list(converted.left_out))}"

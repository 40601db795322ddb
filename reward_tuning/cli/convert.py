"""`reward-tuning convert`: write a checkpoint in the other layout."""

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from reward_tuning.errors import TuningError


def convert(
    source: Annotated[str, typer.Argument(help="A shipped name, a folder or a hub id")],
    target: Annotated[Path, typer.Argument(help="The new folder; must not exist")],
    layout: Annotated[
        str,
        typer.Option(
            help="Target layout: original (the published code, ComfyUI) or diffusers. The source "
            "layout is detected from its weights"
        ),
    ],
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Precision of transformer and VAE: float32, bfloat16 or float16; default: "
            "unchanged, byte for byte"
        ),
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option(help="Maximum size of a weight file, such as 5GB; default: a single file"),
    ] = None,
) -> None:
    """Convert a checkpoint to the original or the diffusers layout; converting back is exact."""
    from base_model.loading.key_map import Layout
    from reward_tuning.schema.values import Dtype

    if layout not in get_args(Layout):
        raise TuningError(f"--layout: got {layout!r}; allowed: {', '.join(get_args(Layout))}")
    if dtype is not None and dtype not in get_args(Dtype):
        raise TuningError(f"--dtype: got {dtype!r}; allowed: {', '.join(get_args(Dtype))}")

    import torch

    from base_model.convert.conversion import convert_checkpoint, describe_left_out
    from base_model.files.shipped import resolve_checkpoint
    from reward_tuning.cli.display import Display, megabytes
    from reward_tuning.cli.stopping import hint_when_stopped
    from reward_tuning.progress import ProgressEvent

    with hint_when_stopped("nothing was written"), Display() as display:
        done = convert_checkpoint(
            resolve_checkpoint(source),
            target,
            cast("Layout", layout),
            dtype=None if dtype is None else getattr(torch, dtype),
            max_shard_size=max_shard_size,
            progress=lambda file, written, total: display(megabytes(file, written, total)),
        )
        for note in filter(None, (describe_left_out(done), *done.notes)):
            display(ProgressEvent("converted", note=note))
    print(
        f"{done.folder}: {done.before} -> {done.layout}, {done.tensors} tensors, "
        f"{done.nbytes / 1e6:.1f} MB"
    )

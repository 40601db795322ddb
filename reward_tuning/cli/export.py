"""`reward-tuning export`: write an adapter in the format of another program."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from reward_tuning.errors import TuningError
from reward_tuning.lora.formats import FORMATS


def export(
    source: Annotated[Path, typer.Argument(help="A run folder, or a LoRA in any format")],
    output: Annotated[
        Path, typer.Option(help="The new .safetensors file; for peft, the new folder")
    ],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help=", ".join(f"{name} ({one.about})" for name, one in FORMATS.items()),
        ),
    ] = "diffusers",
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Generator of the LoRA; default: the one its run folder names"),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="float32 (bit for bit), bfloat16 or float16 (half the size)")
    ] = "float32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files")] = False,
) -> None:
    """Write an adapter in one of the three formats."""
    if format_ not in FORMATS:
        raise TuningError(f"--format: got {format_!r}; allowed: {', '.join(FORMATS)}")
    if (output.suffix == ".safetensors") == FORMATS[format_].is_folder:
        raise TuningError(
            f"--output: got {output}; "
            + (
                f"{format_} writes a folder; give a name without .safetensors"
                if FORMATS[format_].is_folder
                else f"{format_} writes one file; give a name that ends in .safetensors"
            )
        )
    if output.exists() and not overwrite:
        raise TuningError(
            f"{output} exists and is not overwritten; give another --output, or --overwrite"
        )
    from reward_tuning.evidence.adapters import adapter_path, checkpoint_of
    from reward_tuning.lora.module_shapes import transformer_shapes
    from reward_tuning.schema.values import Dtype

    if dtype not in get_args(Dtype):
        raise TuningError(f"--dtype: got {dtype!r}; allowed: {', '.join(get_args(Dtype))}")
    path = adapter_path(source)
    base = checkpoint or checkpoint_of(source)
    if base is None:
        raise TuningError(
            f"{source} is not inside a run folder, so its generator is unknown; name it with "
            "--checkpoint, such as --checkpoint tiny"
        )

    import torch

    from reward_tuning.lora.export import export_adapter, import_adapter

    weights = import_adapter(path, transformer_shapes(base))
    written = export_adapter(weights, output, format_, dtype=getattr(torch, dtype))
    print(written)

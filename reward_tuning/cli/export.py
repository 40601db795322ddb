"""`reward-tuning export`: an adapter in the format of another program, or merged into its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

from typer import Argument, Option, echo

from reward_tuning.cli.option_sections import takes_sections
from reward_tuning.cli.summary import generate_command, generated_from
from reward_tuning.errors import TuningError
from reward_tuning.lora.formats import FORMATS

if TYPE_CHECKING:
    import torch

    from reward_tuning.lora.adapter import LoraWeights


@dataclass(frozen=True)
class LoraOptions:
    """What is exported."""

    PANEL = "The LoRA"

    source: Annotated[Path, Argument(help="A run folder, or a LoRA in any format")]
    strength: Annotated[
        float, Option(help="Strength to bake in: strength 1 of the result is this one")
    ] = 1.0
    rank: Annotated[
        int | None, Option(min=1, help="Smaller rank: the best approximation, with its error")
    ] = None
    checkpoint: Annotated[
        str | None, Option(help="Generator of the LoRA; default: the one its run folder names")
    ] = None


@dataclass(frozen=True)
class ResultOptions:
    """What is written."""

    PANEL = "The result"

    output: Annotated[
        Path, Option(help="The new .safetensors file; for peft and --merge, the new folder")
    ]
    format_: Annotated[
        str | None,
        Option(
            "--format",
            help=", ".join(f"{name} ({one.about})" for name, one in FORMATS.items())
            + "; default: diffusers",
        ),
    ] = None
    dtype: Annotated[
        str | None,
        Option(
            help="float32 (bit for bit), bfloat16 or float16 (half the size); default: float32, "
            "with --merge that of each tensor of the generator"
        ),
    ] = None
    overwrite: Annotated[bool, Option("--overwrite", help="Replace existing files")] = False


@dataclass(frozen=True)
class MergeOptions:
    """A whole generator in place of a LoRA."""

    PANEL = "Merging"

    merge: Annotated[
        bool, Option("--merge", help="Write the whole generator with the LoRA merged into it")
    ] = False
    layout: Annotated[
        str | None, Option(help="original or diffusers; default: the generator's own")
    ] = None
    max_shard_size: Annotated[
        str | None,
        Option(help="Maximum size of a weight file, such as 5GB; default: a single file"),
    ] = None


@takes_sections
def export(lora: LoraOptions, result: ResultOptions, merging: MergeOptions) -> None:
    """Write an adapter in one of the three formats, or merged into its generator."""
    merge, output = merging.merge, result.output
    _check_together(
        merge,
        {
            "--format": result.format_,
            "--rank": lora.rank,
            "--overwrite": result.overwrite or None,
        },
        {"--layout": merging.layout, "--max-shard-size": merging.max_shard_size},
    )
    chosen = result.format_ or "diffusers"
    _check_names(chosen, result.dtype, merging.layout)
    _check_output(output, None if merge else chosen, overwrite=result.overwrite)
    from reward_tuning.evidence.adapters import (
        adapter_path,
        base_in_header,
        checkpoint_of,
        origin_of,
        run_of,
    )
    from reward_tuning.lora.module_shapes import transformer_shapes

    path = adapter_path(lora.source)
    base = lora.checkpoint or checkpoint_of(lora.source) or base_in_header(path)
    if base is None:
        raise TuningError(
            f"{lora.source} is not inside a run folder, so its generator is unknown; name it with "
            "--checkpoint, such as --checkpoint tiny"
        )

    import torch

    from reward_tuning.lora.export import export_adapter, import_adapter
    from reward_tuning.lora.rank import scaled_by, strength_metadata, truncated

    about = origin_of(lora.source, lambda text: echo(text, err=True))
    weights = import_adapter(path, transformer_shapes(base))
    dtype = None if result.dtype is None else getattr(torch, result.dtype)
    if merge:
        _merge(weights, base, output, lora.strength, dtype, merging, about)
        return
    weights = scaled_by(weights, lora.strength)
    about |= strength_metadata(lora.strength, about)
    if lora.rank is not None:
        small = truncated(weights, lora.rank, dtype=dtype or torch.float32)
        weights, about = small.weights, about | small.metadata
        echo(small, err=True)
    print(export_adapter(weights, output, chosen, dtype=dtype or torch.float32, about=about))
    run = run_of(lora.source)
    how = "" if run is None else generated_from(run)[1]
    echo(f"next: {generate_command(str(output), base, how=how)}", err=True)


def _merge(
    weights: LoraWeights,
    base: str,
    output: Path,
    strength: float,
    dtype: torch.dtype | None,
    merging: MergeOptions,
    about: dict[str, str],
) -> None:
    """Merge with progress on the screen, and print what was written."""
    from base_model.convert.conversion import describe_left_out
    from base_model.files.shipped import resolve_checkpoint
    from base_model.loading.key_map import Layout
    from reward_tuning.cli.display import Display, megabytes
    from reward_tuning.cli.stopping import hint_when_stopped
    from reward_tuning.lora.merging import merge_into_checkpoint
    from reward_tuning.progress import ProgressEvent

    with hint_when_stopped("nothing was written"), Display() as display:
        done = merge_into_checkpoint(
            weights,
            resolve_checkpoint(base),
            output,
            layout=cast("Layout | None", merging.layout),
            strength=strength,
            dtype=dtype,
            max_shard_size=merging.max_shard_size,
            about=about,
            progress=lambda file, written, total: display(megabytes(file, written, total)),
        )
        for note in filter(None, (describe_left_out(done.checkpoint), *done.checkpoint.notes)):
            display(ProgressEvent("merged", note=note))
    echo(done.rounding_text(), err=True)
    new = done.checkpoint
    print(
        f"{new.folder}: {new.layout} layout, {new.tensors} tensors, {new.nbytes / 1e6:.1f} MB, "
        f"strength {strength:g}"
    )


def _check_together(
    merge: bool, only_lora: dict[str, object], only_merge: dict[str, object]
) -> None:
    """Refuse options of the other result; None is an option that is not given."""
    advice = {
        "--rank": "export the smaller LoRA first, then merge that file",
        "--format": "give --layout, or leave it out",
        "--overwrite": "remove the old folder yourself",
    }
    for name, value in only_lora.items() if merge else ():
        if value is not None:
            raise TuningError(
                f"{name} is not for --merge, which writes a whole generator; {advice[name]}"
            )
    for name, value in only_merge.items() if not merge else ():
        if value is not None:
            raise TuningError(f"{name} {value} is for --merge, which is not given")


def _check_names(format_: str, dtype: str | None, layout: str | None) -> None:
    if format_ not in FORMATS:
        raise TuningError(f"--format: got {format_!r}; allowed: {', '.join(FORMATS)}")
    from reward_tuning.schema.values import Dtype

    if dtype is not None and dtype not in get_args(Dtype):
        raise TuningError(f"--dtype: got {dtype!r}; allowed: {', '.join(get_args(Dtype))}")
    if layout is not None:
        from base_model.loading.key_map import Layout

        if layout not in get_args(Layout):
            raise TuningError(f"--layout: got {layout!r}; allowed: {', '.join(get_args(Layout))}")


def _check_output(output: Path, format_: str | None, *, overwrite: bool) -> None:
    """Refuse a name that does not fit, or that exists; format None is a checkpoint."""
    is_folder = format_ is None or FORMATS[format_].is_folder
    if (output.suffix == ".safetensors") == is_folder:
        raise TuningError(
            f"--output: got {output}; "
            + (
                f"{format_ or '--merge'} writes a folder; give a name without .safetensors"
                if is_folder
                else f"{format_} writes one file; give a name that ends in .safetensors"
            )
        )
    if output.exists() and not overwrite:
        raise TuningError(
            f"{output} exists and is not overwritten; give another --output"
            + ("" if format_ is None else ", or --overwrite")
        )

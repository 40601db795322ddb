"""`reward-tuning mix`: a weighted sum of adapters, by given weights or by the best of a grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option, echo

from reward_tuning.cli.evaluate import (
    MeasureOptions,
    OutputOptions,
    SideOptions,
    WorkOptions,
    evaluate_and_print,
    made_request,
)
from reward_tuning.cli.option_sections import takes_sections
from reward_tuning.cli.summary import generate_command
from reward_tuning.errors import TuningError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reward_tuning.evidence.mixing import Mix
    from reward_tuning.lora.adapter import LoraWeights

EVALUATION, MIXES = "evaluation", "mixes"


@dataclass(frozen=True)
class MixOptions:
    """What is mixed, and where it goes."""

    PANEL = "The mix"

    sources: Annotated[
        list[Path], Argument(help="Two or more run folders or LoRAs, of one generator")
    ]
    output: Annotated[Path, Option(help="The new .safetensors file, in diffusers' format")]
    weights: Annotated[
        list[float] | None,
        Option(help="Factor of each LoRA, in order, such as 0.7 0.3; default: equal, summing to 1"),
    ] = None
    grid: Annotated[
        int | None,
        Option(
            min=2,
            help="Evaluate all weights in so many parts, such as 4 for quarters, and keep the best "
            "by a metric that no run was trained on",
        ),
    ] = None
    rank: Annotated[
        int | None,
        Option(min=1, help="Smaller rank; default: the sum of the ranks, which is exact"),
    ] = None
    checkpoint: Annotated[
        str | None, Option(help="The generator; default: the one that a run folder names")
    ] = None
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing file")] = False


@takes_sections
def mix(of_mix: MixOptions, of_measures: MeasureOptions, work: WorkOptions) -> None:
    """Mix adapters that were trained on different rewards into one: a weighted sum.

    With --grid, files and evaluation of all mixes are in a folder next to the output; stopped, the
    same command continues.
    """
    _check_output(of_mix)
    from reward_tuning.evidence.mixing import (
        about_mix,
        base_of_mix,
        checked_weights,
        grid_of_mixes,
        mixed,
        read_adapters,
    )
    from reward_tuning.lora.export import export_adapter

    count = len(of_mix.sources)
    if of_mix.grid is None:
        chosen = checked_weights(of_mix.weights or [1 / count] * count, count)
        base = base_of_mix(of_mix.sources, of_mix.checkpoint)
        adapters = read_adapters(of_mix.sources, base)
    else:
        mixes = grid_of_mixes(count, of_mix.grid)
        base = base_of_mix(of_mix.sources, of_mix.checkpoint)
        adapters = read_adapters(of_mix.sources, base)
        chosen = _best(of_mix, of_measures, work, base, adapters, mixes)
    weights, cost = mixed(adapters, chosen, of_mix.rank)
    about = about_mix(chosen, base)
    if cost:
        echo(cost, err=True)
    print(export_adapter(weights, of_mix.output, "diffusers", about=about))
    echo(f"next: {generate_command(str(of_mix.output), base)}", err=True)


def _best(
    of_mix: MixOptions,
    of_measures: MeasureOptions,
    work: WorkOptions,
    base: str,
    adapters: Sequence[LoraWeights],
    mixes: Sequence[Mix],
) -> Mix:
    """Evaluate the adapters and all mixes, print the table, and return the best mix."""
    from reward_tuning.evidence.mixing import Mix, best_side, require_untrained, write_mixes
    from reward_tuning.evidence.setup import resolve

    folder = of_mix.output.with_name(f"{of_mix.output.stem}-grid")
    paths = write_mixes(adapters, mixes, folder / MIXES, of_mix.rank, base)
    sources = [*of_mix.sources, *paths]
    request = made_request(
        SideOptions(sources, checkpoint=of_mix.checkpoint),
        of_measures,
        work,
        OutputOptions(),
    )
    setup = resolve(request)
    require_untrained(setup.primary, setup.trained_on)
    found = evaluate_and_print(request, folder / EVALUATION, work.device, as_json=False)
    count = len(of_mix.sources)
    alone = [Mix(tuple(float(i == j) for j in range(count))) for i in range(count)]
    best = best_side(found)
    chosen = [None, *alone, *mixes][best]
    primary = found["primary"]
    assert chosen is not None
    value = found["sides"][best]["means"][primary]
    print(
        f"best by {primary}: {chosen.name}, {value:.4f}, of {len(alone) + len(mixes)}. The best of "
        "many looks better on the prompts that chose it: evaluate it on others"
    )
    return chosen


def _check_output(of_mix: MixOptions) -> None:
    """Refuse options that exclude each other, and an output that cannot be written.

    Raises:
        TuningError: Names the option, the value and what is allowed.
    """
    output = of_mix.output
    if of_mix.grid is not None and of_mix.weights:
        raise TuningError("--weights and --grid exclude each other: a grid tries all weights")
    if output.suffix != ".safetensors":
        raise TuningError(f"--output: got {output}; the name must end in .safetensors")
    if output.exists() and not of_mix.overwrite:
        raise TuningError(
            f"{output} exists and is not overwritten; give another --output, or --overwrite"
        )

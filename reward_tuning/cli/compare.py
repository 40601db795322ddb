"""`reward-tuning compare`: several runs or methods in one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from reward_tuning.cli.evaluate import (
    MeasureOptions,
    OutputOptions,
    SideOptions,
    WorkOptions,
    evaluate_and_print,
    made_request,
)
from reward_tuning.cli.option_sections import takes_sections
from reward_tuning.errors import TuningError

OUTPUT = Path("compare")


@dataclass(frozen=True)
class RunOptions:
    """The runs."""

    PANEL = "What to compare"

    runs: Annotated[
        list[Path], Argument(help="Two or more run folders, or LoRAs, of one generator")
    ]
    checkpoint: Annotated[
        str | None, Option(help="The base; default: the one that the run folders name")
    ] = None


@takes_sections
def compare(
    of_runs: RunOptions, of_measures: MeasureOptions, work: WorkOptions, result: OutputOptions
) -> None:
    """Compare the adapters of several runs with their common base, each at strength 1.

    It is `evaluate` of these runs, with the folder compare for the results.
    """
    if len(of_runs.runs) < 2:
        raise TuningError(
            f"compare: got {of_runs.runs[0]} alone; give two or more, or use `reward-tuning "
            "evaluate` for one"
        )
    of_sides = SideOptions(of_runs.runs, checkpoint=of_runs.checkpoint)
    request = made_request(of_sides, of_measures, work, result)
    evaluate_and_print(request, result.output or OUTPUT, work.device, as_json=result.as_json)

"""`reward-tuning report`: write the report of a run or an evaluation again."""

from pathlib import Path
from typing import Annotated

import typer

from reward_tuning.errors import TuningError


def report(
    folder: Annotated[Path, typer.Argument(help="A run folder, or a folder of `evaluate`")],
    output: Annotated[
        Path | None,
        typer.Option(help="The HTML file to write; default: report.html in the folder"),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser")] = False,
) -> None:
    """Write one HTML file that shows a run: clips side by side, curves, every score.

    It needs no network, and can be given to others as it is.
    """
    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise TuningError(f"--output: got {output}; give a name that ends in .html")
    from reward_tuning.report import write_report

    path = write_report(folder, output)
    print(path)
    if open_it:
        typer.launch(path.resolve().as_uri())

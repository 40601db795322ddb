"""`reward-tuning card`: write the model card of a run."""

from pathlib import Path
from typing import Annotated

import typer

from reward_tuning.errors import TuningError


def card(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run")],
    output: Annotated[
        Path | None, typer.Option(help="The new file; default: README.md in the run's folder")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading; default: base and judges")] = None,
    licence: Annotated[
        str | None,
        typer.Option("--licence", "--license", help="Of the LoRA, such as apache-2.0"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file")
    ] = False,
) -> None:
    """Write a model card: training, evaluation, how to use the LoRA, limits."""
    path = run / "README.md" if output is None else output
    if path.is_dir():
        raise TuningError(f"--output: {path} is a folder; name a file in it, such as README.md")
    if path.exists() and not overwrite:
        raise TuningError(
            f"{path} exists and is not overwritten; give another --output, or --overwrite"
        )
    from reward_tuning.files.atomic_write import ANOTHER_PLACE, atomic_write
    from reward_tuning.sharing.card import model_card

    text = model_card(run, title=title, licence=licence)
    atomic_write(path, text.encode(), advice=ANOTHER_PLACE)
    print(path)

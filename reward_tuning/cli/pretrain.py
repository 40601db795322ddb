"""`reward-tuning pretrain`: train the embedded generator and judges from scratch."""

from pathlib import Path
from typing import Annotated

import typer

from reward_tuning.cli.stopping import hint_when_stopped
from reward_tuning.errors import TuningError

WORLDS = ("tiny",)


def pretrain(
    world: Annotated[str, typer.Argument(help="The embedded world: tiny")],
    only: Annotated[
        str | None, typer.Option("--only", help="One stage, such as hps; earlier stages must exist")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random draw")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="Folder for weights and training checkpoints")
    ] = None,
) -> None:
    """Train the embedded generator and its judges on rendered clips; resume after a stop."""
    if world not in WORLDS:
        raise TuningError(f"pretrain: got {world!r}; allowed: {', '.join(WORLDS)}")
    from reward_tuning.cli.display import Display
    from reward_tuning.pretrain import pretrain_tiny

    with hint_when_stopped("resume with the same command"), Display() as progress:
        pretrain_tiny(only=only, seed=seed, output=output, progress=progress)

"""`reward-tuning render`: clips of the embedded world, to try a fine-tuning with."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Style = Literal["plain", "negative"]


def render(
    folder: Annotated[Path, typer.Argument(help="For the clips and their metadata.csv.")],
    count: Annotated[int, typer.Option(help="Clips.", min=1)] = 24,
    only: Annotated[
        str, typer.Option(help="Words that every scene has, such as red,star or left.")
    ] = "",
    style: Annotated[
        Style, typer.Option(help="plain, or negative: colours no embedded checkpoint knows.")
    ] = "plain",
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
) -> None:
    """Write rendered clips with captions, and the list that `finetune` reads."""
    from reward_tuning.finetune.rendered import write_rendered_clips

    words = [word.strip() for word in only.split(",") if word.strip()]
    print(write_rendered_clips(folder, count, words=words, style=style, seed=seed))

"""`reward-tuning render`: clips of the embedded world, to fine-tune on or to ask for."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from reward_tuning.errors import TuningError

Mode = Literal["image", "edit", "video", "edges", "trajectory", "camera"]
Split = Literal["train", "held_out"]
Style = Literal["plain", "negative"]


def render(
    folder: Annotated[
        Path, typer.Argument(help="For the clips and their metadata.csv, or prompts.jsonl.")
    ],
    count: Annotated[int, typer.Option(help="Clips.", min=1)] = 24,
    only: Annotated[
        str, typer.Option(help="Words that every scene has, such as red,star or left.")
    ] = "",
    style: Annotated[
        Style, typer.Option(help="plain, or negative: colours no embedded checkpoint knows.")
    ] = "plain",
    ask: Annotated[
        Mode | None,
        typer.Option(help="Write a prompt file, and what its prompts name, in place of clips."),
    ] = None,
    split: Annotated[
        Split, typer.Option(help="Scenes of --ask: those the generator knows, or the others.")
    ] = "train",
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
) -> None:
    """Write rendered clips with captions and the list that `finetune` reads, or a prompt file."""
    from reward_tuning.finetune.rendered import write_rendered_clips

    if ask is not None:
        from reward_tuning.inputs.rendered_prompts import write_rendered_prompts

        if only or style != "plain":
            raise TuningError("--only and --style are for clips; leave them out with --ask")
        print(
            write_rendered_prompts(folder, ask, count, split=split, seed=seed, overwrite=overwrite)
        )
        return
    if split != "train":
        raise TuningError("--split is for --ask; clips to fine-tune on are of training scenes")
    words = [word.strip() for word in only.split(",") if word.strip()]
    print(
        write_rendered_clips(
            folder, count, words=words, style=style, seed=seed, overwrite=overwrite
        )
    )

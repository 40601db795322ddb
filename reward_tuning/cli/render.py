"""`reward-tuning render`: render clips of the embedded world, or prompts with conditions."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from reward_tuning.errors import TuningError

Mode = Literal["image", "edit", "video", "edges", "trajectory", "camera"]
Split = Literal["train", "held_out"]
Style = Literal["plain", "negative"]


def render(
    folder: Annotated[
        Path, typer.Argument(help="Folder for the clips and metadata.csv, or for prompts.jsonl")
    ],
    count: Annotated[int, typer.Option(help="Number of clips", min=1)] = 24,
    only: Annotated[
        str, typer.Option(help="Words that every scene must contain, such as red,star or left")
    ] = "",
    style: Annotated[
        Style,
        typer.Option(help="plain, or negative: inverted colours, unknown to embedded checkpoints"),
    ] = "plain",
    ask: Annotated[
        Mode | None,
        typer.Option(
            help="Write a prompt file and the conditions that its prompts name, instead of clips"
        ),
    ] = None,
    split: Annotated[
        Split,
        typer.Option(help="Scenes of --ask: those the generator was trained on, or held-out ones"),
    ] = "train",
    seed: Annotated[int, typer.Option(help="Seed of every random draw")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files")] = False,
) -> None:
    """Render clips with captions and the metadata.csv that finetune reads, or a prompt file."""
    from reward_tuning.finetune.rendered import write_rendered_clips

    if ask is not None:
        from reward_tuning.inputs.rendered_prompts import write_rendered_prompts

        if only or style != "plain":
            raise TuningError("--only and --style are for clips; omit them with --ask")
        print(
            write_rendered_prompts(folder, ask, count, split=split, seed=seed, overwrite=overwrite)
        )
        return
    if split != "train":
        raise TuningError("--split is for --ask; clips always show training scenes")
    words = [word.strip() for word in only.split(",") if word.strip()]
    print(
        write_rendered_clips(
            folder, count, words=words, style=style, seed=seed, overwrite=overwrite
        )
    )

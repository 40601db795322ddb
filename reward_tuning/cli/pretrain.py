"""`reward-tuning pretrain`: train the embedded networks, or the small decoder of a recipe's VAE."""

from pathlib import Path
from typing import Annotated

import typer

from reward_tuning.cli.stopping import hint_when_stopped
from reward_tuning.errors import TuningError

SUBJECTS = ("tiny", "small-decoder")
RECIPE = "tiny-demo"
"""That of `reward_tuning.pretrain.small_decoder`, which imports torch."""


def pretrain(
    subject: Annotated[
        str,
        typer.Argument(
            help="tiny: the embedded generator and its judges; small-decoder: of a recipe's VAE"
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="small-decoder: key.sub=value for the recipe"),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", help="tiny: one stage, such as hps; earlier stages must exist"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of every random draw; default: 0, or the recipe's")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for weights and training checkpoints")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="small-decoder: recipe whose generator, prompts, sampling and judges it learns "
            f"from; default: {RECIPE}"
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(help="small-decoder: its channels, a multiple of 32; default: 64"),
    ] = None,
    rollouts: Annotated[
        int | None, typer.Option(min=1, help="small-decoder: rollouts to learn from")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="small-decoder: optimiser steps")] = None,
    device: Annotated[
        str | None, typer.Option(help="small-decoder: cpu, cuda, cuda:1; default: as run")
    ] = None,
) -> None:
    """Train the embedded generator and its judges, or distil a small decoder; resume after a stop.

    `small-decoder` writes a file for `train.small_decoder`: for `train.decoder=small`.
    """
    if subject not in SUBJECTS:
        raise TuningError(f"pretrain: got {subject!r}; allowed: {', '.join(SUBJECTS)}")
    of_decoder = {
        "--recipe": recipe,
        "--width": width,
        "--rollouts": rollouts,
        "--steps": steps,
        "--device": device,
        "key=value": overrides or None,
    }
    given = [name for name, value in of_decoder.items() if value is not None]
    if subject == "tiny" and given:
        raise TuningError(f"pretrain tiny: {', '.join(given)} belongs to pretrain small-decoder")
    if subject == "small-decoder" and only is not None:
        raise TuningError("pretrain small-decoder: --only belongs to pretrain tiny")

    if subject == "tiny":
        from reward_tuning.cli.display import Display
        from reward_tuning.pretrain import pretrain_tiny

        with hint_when_stopped("resume with the same command"), Display() as progress:
            pretrain_tiny(only=only, seed=seed or 0, output=output, progress=progress)
        return
    sizes = {"width": width, "rollouts": rollouts, "steps": steps}
    chosen = {name: value for name, value in sizes.items() if value is not None}
    _distil(recipe or RECIPE, overrides or [], seed, output, chosen, device)


def _distil(
    name: str,
    overrides: list[str],
    seed: int | None,
    output: Path | None,
    sizes: dict[str, int],
    device: str | None,
) -> None:
    from reward_tuning.schema.loading import load_recipe

    if seed is not None:
        overrides = [*overrides, f"seed={seed}"]
    loaded = load_recipe(name, overrides)
    from reward_tuning.cli.devices import chosen_device
    from reward_tuning.cli.display import Display
    from reward_tuning.pretrain.small_decoder import Distillation, distil_decoder

    words = ["reward-tuning pretrain small-decoder", f"--recipe {name}", *overrides]
    words += [f"--{option} {value}" for option, value in sizes.items()]
    folder = output or Path("pretrain/small-decoder")
    with hint_when_stopped("resume with the same command"), Display() as progress:
        path = distil_decoder(
            loaded,
            output=folder,
            command=" ".join(words),
            size=Distillation(**sizes),
            device=chosen_device(device),
            progress=progress,
        )
    print(f"Written: {path}")

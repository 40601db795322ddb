"""`reward-tuning pretrain`: train the embedded networks, or the small decoder of a recipe's VAE."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar

from typer import Argument, Option

from reward_tuning.cli.option_sections import takes_sections
from reward_tuning.cli.stopping import hint_when_stopped
from reward_tuning.errors import TuningError

SUBJECTS = ("tiny", "small-decoder")
RECIPE = "tiny-demo"
"""The same as in `reward_tuning.pretrain.small_decoder`, whose import would load torch."""


@dataclass(frozen=True)
class Subject:
    """What is trained, and where."""

    subject: Annotated[
        str, Argument(help="tiny: the embedded generator and its judges; or small-decoder")
    ]
    overrides: Annotated[
        list[str] | None, Argument(help="small-decoder: key.sub=value for the recipe")
    ] = None
    seed: Annotated[
        int | None, Option(help="Seed of every random draw; default: 0, or the recipe's")
    ] = None
    output: Annotated[Path | None, Option(help="Folder for weights and training checkpoints")] = (
        None
    )


@dataclass(frozen=True)
class TinyOptions:
    """The embedded networks."""

    PANEL: ClassVar = "pretrain tiny"

    only: Annotated[
        str | None, Option(help="One stage, such as hps; earlier stages must exist")
    ] = None


@dataclass(frozen=True)
class DecoderOptions:
    """The small decoder."""

    PANEL: ClassVar = "pretrain small-decoder"

    recipe: Annotated[
        str | None,
        Option(
            help="Recipe whose generator, prompts, sampling and judges it learns from; default: "
            f"{RECIPE}"
        ),
    ] = None
    width: Annotated[int | None, Option(help="Channels, a multiple of 32; default: 64")] = None
    rollouts: Annotated[int | None, Option(min=1, help="Rollouts to learn from; default: 40")] = (
        None
    )
    steps: Annotated[int | None, Option(min=1, help="Optimiser steps; default: 1000")] = None
    device: Annotated[
        str | None, Option(help="cpu, cuda, cuda:1; default: cuda if available, else cpu")
    ] = None


@takes_sections
def pretrain(what: Subject, tiny: TinyOptions, decoder: DecoderOptions) -> None:
    """Train the embedded generator and its judges, or distil a small decoder; resume after a stop.

    A small decoder stands in for the VAE's where a recipe sets train.decoder=small.
    """
    if what.subject not in SUBJECTS:
        raise TuningError(f"pretrain: got {what.subject!r}; allowed: {', '.join(SUBJECTS)}")
    if what.subject == "small-decoder":
        if tiny.only is not None:
            raise TuningError("pretrain small-decoder: --only belongs to pretrain tiny; omit it")
        _distil(what, decoder)
        return
    given = [f"--{one.name}" for one in fields(decoder) if getattr(decoder, one.name) is not None]
    given += ["key=value"] if what.overrides else []
    if given:
        raise TuningError(
            f"pretrain tiny: {', '.join(given)} belongs to pretrain small-decoder; omit it"
        )
    from reward_tuning.cli.display import Display
    from reward_tuning.pretrain import pretrain_tiny

    with hint_when_stopped("resume with the same command"), Display() as progress:
        pretrain_tiny(only=tiny.only, seed=what.seed or 0, output=what.output, progress=progress)


def _distil(what: Subject, options: DecoderOptions) -> None:
    from reward_tuning.schema.loading import load_recipe

    name = options.recipe or RECIPE
    overrides = list(what.overrides or [])
    if what.seed is not None:
        overrides.append(f"seed={what.seed}")
    recipe = load_recipe(name, overrides)
    from reward_tuning.cli.devices import chosen_device
    from reward_tuning.cli.display import Display
    from reward_tuning.pretrain.small_decoder import Distillation, distil_decoder

    sizes = {
        key: value
        for key, value in asdict(options).items()
        if key in ("width", "rollouts", "steps") and value is not None
    }
    words = ["reward-tuning pretrain small-decoder", f"--recipe {name}", *overrides]
    words += [f"--{option} {value}" for option, value in sizes.items()]
    with hint_when_stopped("resume with the same command"), Display() as progress:
        path = distil_decoder(
            recipe,
            output=what.output or Path("pretrain/small-decoder"),
            command=" ".join(words),
            size=Distillation(**sizes),
            device=chosen_device(options.device),
            progress=progress,
        )
    print(f"Written: {path}")

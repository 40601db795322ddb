"""`reward-tuning validate`: check a recipe and print all its values."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from reward_tuning.cli.output import print_json
from reward_tuning.errors import TuningError

if TYPE_CHECKING:
    from reward_tuning.evidence.any_recipe import AnyRecipe


def validate(
    recipe: Annotated[str, typer.Argument(help="A shipped name or a path")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, such as train.steps=6")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="Also estimate whether it fits, such as 24GB or rtx-4090 (see estimate)"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the values as JSON")] = False,
) -> None:
    """Check a recipe and print it with every value explicit.

    Finds everything that run, finetune or distil would refuse before loading: in the recipe, the
    prompt files, the clips and the libraries. Lists all mistakes at once and exits with code 2.
    Judges and generators that are not downloaded yet and an output that already holds a run only
    give a note on stderr, and so does a run that does not fit into the memory of --gpu.
    """
    from reward_tuning.cli.devices import chosen_device
    from reward_tuning.cli.display import Display
    from reward_tuning.distil.recipe import DistilRecipe
    from reward_tuning.evidence.any_recipe import load_any_recipe
    from reward_tuning.finetune.recipe import FinetuneRecipe
    from reward_tuning.schema.loading import dump_recipe

    loaded = load_any_recipe(recipe, overrides or [])

    from reward_tuning.distil.preflight import check_distil
    from reward_tuning.finetune.preflight import check_finetune
    from reward_tuning.runs.findings import Findings, check_output
    from reward_tuning.tuning.preflight import check_run

    found: Findings
    with Display() as progress:
        if isinstance(loaded, DistilRecipe):
            found = check_distil(loaded, chosen_device(None), progress)
        elif isinstance(loaded, FinetuneRecipe):
            found = check_finetune(loaded, chosen_device(None), progress)
        else:
            found = check_run(loaded, chosen_device(None), progress)
    if found.mistakes:
        raise TuningError("\n".join(found.mistakes))
    if as_json:
        print_json(loaded.model_dump(mode="json"))
    else:
        print(dump_recipe(loaded), end="")
    lines = [*found.missing, *_generator_notes(loaded), *check_output(loaded.output)]
    if gpu is not None:
        lines.append(_memory_note(loaded, recipe, gpu))
    for line in lines:
        print(f"note: {line}", file=sys.stderr)


def _memory_note(loaded: "AnyRecipe", name: str, gpu: str) -> str:
    """Say whether a run fits into a GPU, by an estimate that takes up to two minutes."""
    from reward_tuning.cli.display import Display
    from reward_tuning.estimate.cards import card_of
    from reward_tuning.estimate.estimate import estimate

    card = card_of(gpu)
    with Display() as progress:
        found = estimate(loaded, time=False, progress=progress)
    phase, size = found.peak
    fits = "fits" if size <= card.usable else "does not fit"
    return (
        f"memory: {size / 1e9:.1f} GB of tensors at the peak, in the phase {phase}, {fits} into "
        f"the {card.usable / 1e9:.1f} GB that {card.memory / 1e9:g} GB leave to them; "
        f"`reward-tuning estimate {name} --gpu {gpu}` tells more"
    )


def _generator_notes(recipe: "AnyRecipe") -> list[str]:
    """Name what the run downloads of its generator, which is far larger than the judges."""
    from reward_tuning.sampling.generator_parts import to_download

    return [
        f"generator.checkpoint: {name} is not on this disk; the run downloads it when it starts, "
        "tens of GB for EasyAnimateV5.1"
        for name in to_download(recipe.generator)
    ]

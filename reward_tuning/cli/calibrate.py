"""`reward-tuning calibrate`: what a recipe's judges give to the base's clips."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reward_tuning.cli.devices import chosen_device
from reward_tuning.cli.output import print_json, print_table
from reward_tuning.errors import TuningError

if TYPE_CHECKING:
    from reward_tuning.schema.recipe import Recipe
    from reward_tuning.tuning.calibration import Calibration

NEXT_STEP = "the result is printed above; free some space or choose another place"


def calibrate(
    recipe: Annotated[str, typer.Argument(help="A shipped name or a path.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, such as evaluation.steps=16")
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Training prompts, a clip of the base each; default: 32, or all of fewer.",
        ),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(help="Write the recipe, every value explicit, with mean and std into it."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1; default: cuda where there is one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result.")] = False,
) -> None:
    """Measure mean and deviation of each judge, so that their weights can be compared.

    The loss then counts (score - mean) / std. Paste the printed lines into the recipe, give them
    on the command line, or take the file of --write.
    """
    from reward_tuning.schema.loading import dump_recipe, load_recipe

    loaded = load_recipe(recipe, overrides or [])
    if write is not None and (write.suffix != ".yaml" or write.exists()):
        wrong = "exists already" if write.exists() else "does not end in .yaml"
        raise TuningError(f"--write: {write} {wrong}; give a new .yaml file")
    if write is not None:
        from reward_tuning.files.atomic_write import check_place

        check_place(write.parent)  # before minutes of sampling

    from reward_tuning.cli.display import Display
    from reward_tuning.tuning.calibration import calibrate as measure
    from reward_tuning.tuning.calibration import calibrated

    place = chosen_device(device)
    with Display() as progress:
        found = measure(loaded, place, prompts=prompts, progress=progress)
    filled, count = calibrated(loaded, found), found[0].clips
    lines = [
        f"rewards.{i}.{key}={getattr(reward, key)}"
        for i, reward in enumerate(filled.rewards)
        for key in ("mean", "std")
    ]
    if as_json:
        judges = [vars(one) for one in found]
        print_json({"prompts": count, "judges": judges, "overrides": lines})
    else:
        _print(loaded, filled, found, lines)
    if write is not None:  # after the result is printed: a full disk shall not cost it
        from reward_tuning.files.atomic_write import atomic_write

        head = f"mean and std measured on {count} clips of {loaded.generator.checkpoint}"
        atomic_write(write, dump_recipe(filled, [head]).encode(), advice=NEXT_STEP)
        if not as_json:
            print(f"Written: {write}")


def _print(
    loaded: "Recipe", filled: "Recipe", found: "list[Calibration]", lines: list[str]
) -> None:
    rows = [
        [*(f"{value:.4g}" for value in (one.mean, one.deviation, one.low, one.high)), one.label]
        for one in found
    ]
    title = f"Scores of {found[0].clips} clips of the base, {loaded.generator.checkpoint}"
    print_table(title, ("mean", "deviation", "lowest", "highest", "judge"), rows)
    print("In the recipe:")
    for i, reward in enumerate(filled.rewards):
        print(f"  rewards.{i} ({reward.label}): mean: {reward.mean}, std: {reward.std}")
    print(f"On the command line:\n  {' '.join(lines)}")

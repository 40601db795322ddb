"""`reward-tuning calibrate`: statistics of a recipe's judges on clips of the base."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reward_tuning.cli.devices import chosen_device
from reward_tuning.cli.output import print_json, print_table
from reward_tuning.cli.quick_imports import quick_imports
from reward_tuning.errors import TuningError

if TYPE_CHECKING:
    from reward_tuning.schema.recipe import Recipe
    from reward_tuning.tuning.calibration import Calibration

NEXT_STEP = "the result is printed above; free some space or choose another path"


def calibrate(
    recipe: Annotated[str, typer.Argument(help="A shipped name or a path")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, such as evaluation.steps=16")
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Number of training prompts, one clip of the base each; default: 32, or all if "
            "there are fewer",
        ),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(help="Write the full recipe, with mean and std filled in, to this new file"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1; default: cuda if available, else cpu")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON")] = False,
) -> None:
    """Measure mean and standard deviation of each judge, to make their weights comparable.

    The loss then uses (score - mean) / std. Paste the printed lines into the recipe, pass them on
    the command line, or use the file that --write makes.
    """
    from reward_tuning.schema.loading import dump_recipe, load_recipe

    loaded = load_recipe(recipe, overrides or [])
    if write is not None and (write.suffix != ".yaml" or write.exists()):
        wrong = "exists" if write.exists() else "does not end in .yaml"
        raise TuningError(f"--write: {write} {wrong}; give a new .yaml file")
    if write is not None:
        from reward_tuning.files.atomic_write import check_writable

        check_writable(write.parent)  # fail before minutes of sampling

    from reward_tuning.cli.display import Display

    with quick_imports():
        from reward_tuning.tuning.calibration import calibrate as measure
        from reward_tuning.tuning.calibration import calibrated
        from reward_tuning.tuning.preflight import check_calibration

    chosen = chosen_device(device)
    with Display() as progress:
        check_calibration(loaded).refuse()
        found = measure(loaded, chosen, prompts=prompts, progress=progress)
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
    if write is not None:  # after printing: a full disk must not lose the result
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
    title = f"Scores of {found[0].clips} clips of the base {loaded.generator.checkpoint}"
    print_table(title, ("mean", "deviation", "lowest", "highest", "judge"), rows)
    print("In the recipe:")
    for i, reward in enumerate(filled.rewards):
        print(f"  rewards.{i} ({reward.label}): mean: {reward.mean}, std: {reward.std}")
    print(f"On the command line:\n  {' '.join(lines)}")

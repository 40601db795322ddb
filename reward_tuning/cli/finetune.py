"""`reward-tuning finetune`: train a LoRA, or every weight, on one's own clips."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reward_tuning.errors import TuningError

if TYPE_CHECKING:
    from reward_tuning.finetune.recipe import FinetuneRecipe

PLACES = ("lora", "generator", "metrics.jsonl", "clips.json", "finetune.json")


def finetune(
    recipe: Annotated[str, typer.Argument(help="A shipped name (finetune/NAME) or a path.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, such as data.metadata=clips.csv")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result.")] = False,
) -> None:
    """Train a generator on clips, by flow matching: what people do before a reward tuning.

    A reward tuning goes on from its LoRA with lora.init=RUN_FOLDER.
    """
    from reward_tuning.finetune.recipe import load_finetune_recipe

    loaded = load_finetune_recipe(recipe, overrides or [])
    folder = Path(loaded.output)
    if (folder / "recipe.yaml").exists():
        raise TuningError(
            f"output: {folder} holds a run already; go on with it by `reward-tuning resume "
            f"{folder}`, or choose another folder with output=DIR"
        )
    finetune_and_tell(loaded, resume=False, as_json=as_json)


def finetune_and_tell(recipe: "FinetuneRecipe", *, resume: bool, as_json: bool) -> None:
    """Run a recipe under a progress display and print what came of it."""
    from reward_tuning.cli.display import Display
    from reward_tuning.cli.output import print_json
    from reward_tuning.cli.stopping import Stopped
    from reward_tuning.finetune.trainer import finetune as train

    folder = Path(recipe.output)
    try:
        with Display() as progress:
            result = train(recipe, resume=resume, progress=progress)
    except Stopped as stop:
        kept = (folder / "recipe.yaml").is_file()
        stop.hint = (
            f"go on with: reward-tuning resume {folder}" if kept else "nothing was begun yet"
        )
        raise
    places = {name: str(folder / name) for name in PLACES if (folder / name).exists()}
    if as_json:
        print_json({"run": str(folder), **result.summary, "places": places})
        return
    print(told(dict(result.summary)))
    for name, place in places.items():
        print(f"{name + ':':15}{place}")


def told(summary: dict[str, Any]) -> str:
    """What a fine-tuning did, in two or three lines."""
    lines = [
        f"{summary['steps']} steps on {summary['clips']} clips, {summary['epochs']:.1f} epochs; "
        f"{len(summary['broken'])} files could not be used"
    ]
    if summary["base"] and summary["tuned"]:
        base, tuned = summary["base"]["loss"], summary["tuned"]["loss"]
        lines.append(
            f"loss of the held-out clips: {base:.4f} before, {tuned:.4f} after "
            f"({(tuned - base) / base:+.1%})"
        )
    return "\n".join(lines)

"""What `run` and `resume` share: train in sight, then tell what came of it."""

from pathlib import Path

from reward_tuning.cli.stopping import Stopped
from reward_tuning.recipe import Recipe


def train_and_tell(recipe: Recipe, *, resume: bool, as_json: bool) -> None:
    """Run a recipe under a progress display and print the summary of its run folder."""
    from reward_tuning.cli.display import Display
    from reward_tuning.cli.summary import print_summary
    from reward_tuning.trainer import run

    folder = Path(recipe.output)
    try:
        with Display() as progress:
            run(recipe, resume=resume, progress=progress)
    except Stopped as stop:
        kept = (folder / "recipe.yaml").is_file()
        stop.hint = (
            f"go on with: reward-tuning resume {folder}" if kept else "nothing was begun yet"
        )
        raise
    print_summary(folder, as_json=as_json)

"""What `run` and `resume` share: train in sight, then tell what came of it."""

from pathlib import Path

from reward_tuning.cli.stopping import Stopped
from reward_tuning.schema.recipe import Recipe


def train_with_progress(recipe: Recipe, *, resume: bool, as_json: bool) -> None:
    """Run a recipe under a progress display and print the summary of its run folder."""
    from reward_tuning.cli.display import Display
    from reward_tuning.cli.summary import print_summary
    from reward_tuning.runs.launching import is_main_process, leave_processes
    from reward_tuning.tuning.trainer import run

    folder = Path(recipe.output)
    try:
        with Display() as progress:
            run(recipe, resume=resume, progress=progress)
    except Stopped as stop:
        stop.hint = how_to_go_on(folder)
        raise
    if is_main_process():
        print_summary(folder, as_json=as_json)
    leave_processes()


def how_to_go_on(folder: Path) -> str:
    """What to say of a training that was stopped."""
    from reward_tuning.runs.launching import resume_command

    if not (folder / "recipe.yaml").is_file():
        return "nothing was begun yet"
    return f"go on with: {resume_command(folder)}"

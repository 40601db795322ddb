"""Training with a progress display and a summary, shared by `run` and `resume`."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reward_tuning.cli.quick_imports import quick_imports
from reward_tuning.cli.stopping import Stopped, StoppedAsAsked
from reward_tuning.schema.recipe import Recipe


def train_with_progress(recipe: Recipe, *, resume: bool, as_json: bool) -> None:
    """Run a recipe with a progress display and print the summary of its run folder."""
    with quick_imports():
        from reward_tuning.cli.display import Display
        from reward_tuning.cli.summary import print_summary
        from reward_tuning.runs.launching import is_main_process, leave_processes
        from reward_tuning.tuning.trainer import run

    folder = Path(recipe.output)
    with stops_explained(folder), Display() as progress:
        run(recipe, resume=resume, progress=progress)
    if is_main_process():
        print_summary(folder, as_json=as_json)
    leave_processes()


@contextmanager
def stops_explained(folder: Path) -> Iterator[None]:
    """End the command with the way to resume, where a signal or `control/stop` stops the body.

    A signal that arrives while steps are made ends the run as an order does, with a checkpoint.
    """
    from reward_tuning.runs.control import RunStopped
    from reward_tuning.runs.launching import is_main_process

    try:
        yield
    except Stopped as stop:
        stop.hint = resume_hint(folder)
        raise
    except RunStopped as stop:
        text = str(stop) if is_main_process() else ""
        raise StoppedAsAsked(text, stop.number or signal.SIGINT) from stop


def resume_hint(folder: Path) -> str:
    """Return the hint after a stopped training."""
    from reward_tuning.runs.resume_command import resume_command

    if not (folder / "recipe.yaml").is_file():
        return "nothing was started yet"
    return f"resume with: {resume_command(folder)}"

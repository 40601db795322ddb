"""`--retry-with-less-memory`: where memory runs out, go on in a fresh process that needs less."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from reward_tuning.section import Section

OPTION = "--retry-with-less-memory"
Retry = Annotated[
    bool,
    typer.Option(
        OPTION,
        help="Where memory runs out, go on from the last step made with the next change of the "
        "recipe that needs less there and leaves the numbers the same, at most to rounding",
    ),
]


@contextmanager
def retried(recipe: "Section", *, wanted: bool) -> Iterator[None]:
    """Start the command again with one change more, where the body runs out of memory.

    A fresh process takes the place of this one, since what holds the memory is not known.

    Args:
        recipe: Recipe of the run, with `output`.
        wanted: The option was given.

    Raises:
        OutOfMemory: Memory ran out, and nothing is to be changed or left to change.
    """
    from reward_tuning.runs.out_of_memory import OutOfMemory, next_change
    from reward_tuning.runs.resume_command import world_size
    from reward_tuning.runs.signals import WAITING

    try:
        yield
    except OutOfMemory as error:
        if not wanted:
            raise
        import torch

        values = recipe.model_dump(mode="json")
        cuda = torch.cuda.is_available()
        change = next_change(values, cuda=cuda, gradient=error.gradient)
        if WAITING.number:  # a signal has asked the training to end
            raise
        if change is None:
            raise OutOfMemory(f"{error}\n{OPTION}: nothing is left to change") from error
        if (world_size(os.environ) or 1) > 1:
            raise OutOfMemory(
                f"{error}\n{OPTION}: not with several processes, whose launcher must start all "
                f"of them again; resume with {change.override}"
            ) from error
        print(f"{error}\n\n{OPTION}: going on with {change.override}", file=sys.stderr)
        _start(words_again(sys.argv[1:], Path(values["output"]), change.override))
        raise  # only where the process cannot be replaced, as in tests


def words_again(words: Sequence[str], folder: Path, override: str) -> list[str]:
    """Return the words of the command that goes on.

    Args:
        words: Those of this command.
        folder: The run folder. A run that has begun there is resumed.
        override: The change.
    """
    if words[0] == "resume" or not (folder / "recipe.yaml").is_file():
        return [*words, *override.split()]
    options = [word for word in words if word in (OPTION, "--json")]
    return ["resume", str(folder), *override.split(), *options]


def _start(words: list[str]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "reward_tuning.cli", *words])

"""What a run does for its judges outside this process: keeps their answers, and ends together.

Where one does not answer, every process leaves the step before it changes anything
(`reward_tuning.runs.undone`), so that the main one can save the state before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from reward_tuning.errors import TuningError
from reward_tuning.files.hashes import text_sha256
from reward_tuning.judges.judge import Judge
from reward_tuning.runs.frame import with_resume_command
from reward_tuning.runs.undone import UndoneStep
from rewards.core.black_box import BlackBoxReward
from rewards.errors import JudgeUnavailable


def outside_judges(judges: Iterable[Judge]) -> list[BlackBoxReward]:
    """Return the judges that are outside this process."""
    return [judge.reward for judge in judges if isinstance(judge.reward, BlackBoxReward)]


def remember_answers(judges: Sequence[BlackBoxReward], folder: Path, process: int) -> None:
    """Keep the answers of judges in files of this process, and use those that are there.

    Args:
        judges: Judges with different names.
        folder: Folder of the files.
        process: Number of this process.

    Raises:
        RewardError: A file is damaged or cannot be written.
    """
    for judge in judges:
        judge.remember(folder / f"{_file_stem(judge.name)}-rank{process}.jsonl")


@contextmanager
def all_or_none(accelerator: Accelerator) -> Iterator[None]:
    """Leave a step on every process where a judge does not answer one of them.

    Args:
        accelerator: Processes of the run; each of them enters and leaves this context.

    Raises:
        UndoneStep: A judge of this or of another process has given no usable answer.
    """
    mine: JudgeUnavailable | None = None
    try:
        yield
    except JudgeUnavailable as error:
        mine = error
    if accelerator.num_processes == 1:
        if mine is not None:
            raise UndoneStep(str(mine)) from mine
        return
    told: list[str] = gather_object(["" if mine is None else str(mine)])
    if mine is not None:
        raise UndoneStep(str(mine)) from mine
    for process, text in enumerate(told):
        if text:
            raise UndoneStep(f"process {process} of {len(told)}: {text}")


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Name the command that resumes a run where a judge does not answer outside of a step.

    Args:
        folder: The run folder.

    Raises:
        TuningError: A judge has given no usable answer.
    """
    try:
        yield
    except JudgeUnavailable as error:
        raise TuningError(with_resume_command(error, folder)) from error


def close_judges(judges: Iterable[BlackBoxReward]) -> None:
    """End what the judges keep running."""
    for judge in judges:
        judge.close()


def _file_stem(label: str) -> str:
    """Return a name that a file can have, different for different labels."""
    plain = re.sub(r"[^\w.-]", "_", label)[:60]
    return plain if plain == label else f"{plain}-{text_sha256(label)[:8]}"

"""Collect everything that is wrong with a run before it begins, instead of raising one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from base_model.errors import GeneratorError
from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import check_writable
from reward_tuning.runs.folder import RunFolder


@dataclass
class Findings:
    """Everything that a verb would refuse.

    Attributes:
        mistakes: Faults of the recipe, its files or this machine, one text each.
        missing: Judges to download first, each with the command that does it.
        refusals: Errors that are collected; a training with judges adds theirs, since a fine-tuning
            does not import them.
    """

    refusals: ClassVar[tuple[type[ValueError], ...]] = (TuningError, GeneratorError)

    mistakes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @contextmanager
    def collect(self, key: str = "") -> Iterator[None]:
        """Collect what the body refuses, and continue after it.

        Args:
            key: Key of the recipe that the refusal is about, named first in its text.
        """
        try:
            yield
        except self.refusals as error:
            text = f"{key}: {error}" if key and not str(error).startswith(key) else str(error)
            if text not in self.mistakes:
                self.mistakes.append(text)

    def refuse(self) -> None:
        """Refuse to begin if anything was found.

        Raises:
            TuningError: Everything that was found, one line each.
        """
        if found := [*self.mistakes, *self.missing]:
            raise TuningError("\n".join(found))


def check_output(folder: str) -> list[str]:
    """List what prevents a run in this folder; none of it is a fault of the recipe."""
    found = Findings()
    with found.collect("output"):
        RunFolder(folder).refuse_existing_run()
    with found.collect("output"):
        check_writable(Path(folder))
    return found.mistakes

"""What is wrong with a run before it begins, collected instead of raised one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from base_model.errors import GeneratorError
from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import check_place
from reward_tuning.lora.init import check_start_in
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.runs.folder import RunFolder
from reward_tuning.schema.sections import LoraSection
from rewards.errors import RewardError


@dataclass
class Findings:
    """What a verb would refuse.

    Attributes:
        mistakes: Of the recipe, its files or this machine, a text each.
        missing: Judges that must be fetched first, each with the command.
    """

    mistakes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @contextmanager
    def told(self, key: str = "") -> Iterator[None]:
        """Keep what is refused within the context, and go on."""
        try:
            yield
        except (TuningError, GeneratorError, RewardError) as error:
            text = f"{key}: {error}" if key and not str(error).startswith(key) else str(error)
            if text not in self.mistakes:
                self.mistakes.append(text)

    def refuse(self) -> None:
        """Refuse to begin.

        Raises:
            TuningError: With everything that was found.
        """
        if found := [*self.mistakes, *self.missing]:
            raise TuningError("\n".join(found))


def check_output(folder: str) -> list[str]:
    """What stands against a run in this folder, which says nothing against its recipe."""
    found = Findings()
    with found.told("output"):
        RunFolder(folder).refuse_a_second_run()
    with found.told("output"):
        check_place(Path(folder))
    return found.mistakes


def check_lora(
    found: Findings, lora: LoraSection | None, root: Path | None, progress: ProgressFn
) -> None:
    """Read the LoRA that a run starts from; held against the generator where that is here."""
    with found.told("lora.init"):
        if note := check_start_in(lora, root):
            progress(ProgressEvent("loading", note=note))

"""Progress of a long task: a plain value given to a plain function.

A task knows no terminal. It calls `progress(ProgressEvent(...))` as often as it likes; the command
line draws the event, a test collects it, `silent` drops it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ProgressEvent:
    """One report of a task at work.

    Attributes:
        stage: Name of the stage, such as `text states`, `training`, `evaluation`.
        done: Finished units of the stage.
        total: All units of the stage; 0 where their number is unknown.
        phase: Part of the current unit, such as `rollout`, `reward`, `sweep`.
        metrics: Numbers to show, such as the reward of the last step.
        note: Lines that stay on the screen, such as a table or a warning; empty for none.
    """

    stage: str
    done: int = 0
    total: int = 0
    phase: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


ProgressFn = Callable[[ProgressEvent], None]


def silent(event: ProgressEvent) -> None:
    """Drop the event."""
    del event

"""What a long task tells while it works: a plain value to a plain function.

The tasks know no terminal. They call `progress(ProgressEvent(...))` as often as they like; the
command line draws it, a test collects it, `silent` drops it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ProgressEvent:
    """One sign of life.

    Attributes:
        stage: What is under way, such as `text states`, `training`, `evaluation`.
        done: Units of the stage that are finished.
        total: Units of the stage; 0 where that is unknown.
        phase: What is being done inside the unit, such as `rollout`, `reward`, `sweep`.
        metrics: Numbers to show, such as the reward of the last step.
        note: Lines to leave standing, such as a table or a warning; empty for none.
    """

    stage: str
    done: int = 0
    total: int = 0
    phase: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


ProgressFn = Callable[[ProgressEvent], None]


def silent(event: ProgressEvent) -> None:
    """Show nothing."""
    del event

"""The recipe key `tracking`: the tools that show a run's numbers besides metrics.jsonl."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict

TrackerName = Literal["tensorboard", "wandb", "trackio", "mlflow"]


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is named more than once; name each tracker once")
    return names


Tracking = Annotated[
    tuple[TrackerName, ...],
    Strict(False),
    AfterValidator(_different),
    Field(
        default=("tensorboard",),
        validate_default=True,
        description="Where the numbers, sample clips, recipe and evaluation of the run go besides "
        "its folder: tensorboard, wandb, trackio, mlflow (docs/runs.md, Trackers); [] = nowhere "
        "else. A resume may change it",
    ),
]

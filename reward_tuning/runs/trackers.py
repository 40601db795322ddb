"""Where a run goes besides its folder: the trackers that the recipe names, begun or continued."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reward_tuning.errors import TuningError, shortened
from reward_tuning.files.atomic_write import atomic_write
from reward_tuning.files.json_text import parsed_json
from reward_tuning.files.masked_text import masked
from reward_tuning.runs.mlflow import MLflow
from reward_tuning.runs.patient_tracker import PatientTracker
from reward_tuning.runs.tensorboard import TensorBoard
from reward_tuning.runs.tracker_parts import Tracker, TrackerStart
from reward_tuning.runs.trackio import Trackio
from reward_tuning.runs.wandb import WandB

TRACKERS: Mapping[str, Callable[[TrackerStart], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
    "mlflow": MLflow,
}
"""The trackers, by their names in a recipe (`reward_tuning.schema.tracking`)."""


def open_trackers(
    names: Sequence[str],
    start: TrackerStart,
    recipe: Path,
    values: Mapping[str, Any],
    tell: Callable[[str], None],
) -> list[PatientTracker]:
    """Begin or continue the run in each tracker, and give it the recipe.

    What each needs to continue is kept in `tracking/ids.json` of the run folder.

    Args:
        names: Trackers of the recipe.
        start: Where the run stands; its `kept` is read from the run folder.
        recipe: recipe.yaml of the run folder.
        values: Values of the recipe, nested.
        tell: Show a line to the person at the terminal.

    Raises:
        TuningError: A tracker cannot be started, or the disk is full.
    """
    ids = start.place / "ids.json"
    kept = _read(ids)
    opened: list[PatientTracker] = []
    try:
        for name in names:
            tracker = _opened(name, replace(start, kept=kept.get(name, {})))
            opened.append(PatientTracker(name, tracker, tell))
            if tracker.kept and tracker.kept != kept.get(name):
                kept[name] = dict(tracker.kept)
                atomic_write(ids, json.dumps(kept, indent=1).encode())
            if tracker.where:
                tell(f"tracking: {name}: {masked(tracker.where)}")
            opened[-1].recipe(recipe, values)
    except BaseException:
        for one in opened:
            one.close(finished=False)
        raise
    return opened


def _opened(name: str, start: TrackerStart) -> Tracker:
    try:
        return TRACKERS[name](start)
    except (TuningError, OSError) as error:
        if isinstance(error, TuningError) or error.errno is not None:
            raise
        raise _not_started(name, error) from error
    except Exception as error:
        raise _not_started(name, error) from error


def _not_started(name: str, error: Exception) -> TuningError:
    reason = shortened(masked(str(error).strip()) or type(error).__name__, 400)
    return TuningError(
        f"tracking: {name} cannot be started: {reason.rstrip('.')}. Mend that, or leave {name} out "
        "with tracking=[...], and continue with `reward-tuning resume` on the run folder"
    )


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        found: dict[str, dict[str, str]] = parsed_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TuningError(
            f"{path} is damaged ({error}); delete it, and the trackers begin a new run each"
        ) from error
    return found

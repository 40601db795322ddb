"""evaluation.json of a run, checked: what reads it may rely on its parts."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from reward_tuning.errors import TuningError
from reward_tuning.files.json_text import parsed_json


class _Change(BaseModel):
    mean: float | None
    low: float | None
    high: float | None


class _Checkpoint(BaseModel):
    text: str = ""


class _Evaluation(BaseModel):
    """The kinds of its parts; other keys may be there."""

    base: dict[str, float | None] = Field(default_factory=dict)
    tuned: dict[str, float | None] = Field(default_factory=dict)
    difference: dict[str, _Change] = Field(default_factory=dict)
    prompts: int = 0
    seeds: int = 0
    trained_on: list[str] = Field(default_factory=list)
    never_trained_on: list[str] = Field(default_factory=list)
    start: str = "base"
    rendered: dict[str, float | None] = Field(default_factory=dict)
    primary: str | None = None
    checkpoint: _Checkpoint | None = None


WHOLE = ("base", "tuned", "difference", "prompts", "seeds", "trained_on", "never_trained_on")
"""What every version has written."""


def read_evaluation_file(path: Path, needed: Collection[str] = ()) -> dict[str, Any] | None:
    """Read evaluation.json; None where there is none.

    Args:
        path: Path of the file.
        needed: Keys that must be there, such as `WHOLE`.

    Raises:
        TuningError: It cannot be read, or a part is missing or of another kind.
    """
    try:
        found: dict[str, Any] = parsed_json(path.read_text(encoding="utf-8"))
        checked = _Evaluation.model_validate(found)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise _damaged(path, f"{place}: {first['msg']}") from error
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if missing := [key for key in needed if key not in found]:
        verb = "is" if len(missing) == 1 else "are"
        raise _damaged(path, f"{' and '.join(missing)} {verb} missing")
    for metric in checked.difference if needed else ():
        if not (metric in checked.base and metric in checked.tuned):
            raise _damaged(path, f"base or tuned has no {metric}")
    return found


def _damaged(path: Path, why: str) -> TuningError:
    return TuningError(f"{path} is damaged ({why}); delete it and resume the run")

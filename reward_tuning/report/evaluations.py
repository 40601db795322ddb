"""evaluation.json as the report reads it: sides, questions, and what an older file lacks.

Files of format 2 hold the sides. An older run has only means of base and tuned, and sample clips
of both from the same noise: they become two sides without scores per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reward_tuning.errors import TuningError
from reward_tuning.files.json_text import parsed_json
from reward_tuning.statistics.verdicts import default_primary

EVALUATION, FINETUNE = "evaluation.json", "finetune.json"


class _Read(BaseModel):
    """A part of a file that may have more keys than are read here."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Change(_Read):
    """The difference of a side to its base in one metric, with a 95 % interval."""

    mean: float | None
    low: float | None
    high: float | None
    up: int = 0
    down: int = 0
    p: float | None = None
    p_adjusted: float | None = None
    prompts: int | None = None


class Question(_Read):
    """A prompt of the evaluation."""

    prompt: str
    reward_prompt: str | None = None
    category: str | None = None
    seed: int | None = None


class Side(_Read):
    """Base or tuned, at one strength and one way of sampling."""

    name: str
    adapter: str | None = None
    strength: float = 0.0
    steps: int | None = None
    guidance_scale: float | None = None
    scores: dict[str, list[float | None]] = Field(default_factory=dict)
    means: dict[str, float | None] = Field(default_factory=dict)
    against: int | None = None
    difference: dict[str, Change] = Field(default_factory=dict)
    clips: dict[int, str] = Field(default_factory=dict)


class Checkpoint(_Read):
    """Which checkpoint the guards chose."""

    step: int
    text: str = ""


class Evaluation(_Read):
    """Everything that the report shows of an evaluation.

    Attributes:
        primary: The metric that was named beforehand as the one that decides.
        questions: One a prompt, in order.
        sides: Base first.
        missing: What this file lacks, in sentences for the reader.
        texts: What `reward-tuning evaluate` says of the sides, in sentences.
    """

    primary: str | None = None
    trained_on: tuple[str, ...] = ()
    never_trained_on: tuple[str, ...] = ()
    start: str | None = None
    prompts: int | None = None
    seeds: int | None = None
    checkpoint: Checkpoint | None = None
    questions: tuple[Question, ...] = ()
    sides: tuple[Side, ...] = ()
    missing: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """Every metric: judges never trained on, those trained on, then the rest as recorded."""
        recorded = [name for side in self.sides for name in (*side.means, *side.scores)]
        judges = [*self.never_trained_on, *self.trained_on]
        found = dict.fromkeys(recorded)
        return [*(n for n in judges if n in found), *(n for n in found if n not in judges)]


def read_evaluation(folder: Path) -> Evaluation | None:
    """Read the evaluation of a run or of `evaluate`; None where there is none.

    Raises:
        TuningError: The file is damaged, or refers to sides or prompts that it does not have.
    """
    path = folder / EVALUATION
    try:
        found = parsed_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(path, "it is no object")
    try:
        if "sides" in found:
            evaluation = Evaluation.model_validate(found)
            _check(evaluation, path)
            return evaluation
        return _old(found, folder)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _damaged(path, f"{place}: {first['msg']}") from error


def _damaged(path: Path, why: str) -> TuningError:
    return TuningError(
        f"{path} is damaged ({why}); delete it, then resume the run or repeat the evaluation"
    )


def _check(evaluation: Evaluation, path: Path) -> None:
    count = len(evaluation.questions)
    for number, side in enumerate(evaluation.sides):
        name = f"sides.{number}"
        if side.against is not None and not 0 <= side.against < len(evaluation.sides):
            raise _damaged(path, f"{name}.against is {side.against}, which is no side")
        for metric, values in side.scores.items():
            if len(values) != count:
                raise _damaged(
                    path, f"{name}.scores.{metric} has {len(values)} values for {count} prompts"
                )
        if any(not 0 <= index < count for index in side.clips):
            raise _damaged(path, f"{name}.clips names a prompt that is not among the questions")


def _old(found: dict[str, Any], folder: Path) -> Evaluation:
    """Make two sides of the means and sample clips of a run of an older version."""
    questions, clips = sample_clips(folder)
    base = Side(name="base", means=found.get("base", {}), clips=clips[0] if clips else {})
    tuned = Side.model_validate(
        {
            "name": "tuned",
            "strength": 1.0,
            "means": found.get("tuned", {}),
            "against": 0,
            "difference": found.get("difference", {}),
            "clips": clips[-1] if len(clips) > 1 else {},
        }
    )
    known = {k: v for k, v in found.items() if k not in ("sides", "questions", "primary")}
    evaluation = Evaluation.model_validate(known)
    return evaluation.model_copy(
        update={
            "questions": tuple(questions),
            "sides": (base, tuned),
            "primary": default_primary(evaluation.never_trained_on, evaluation.trained_on),
            "missing": (
                "This run was evaluated by an older version, which recorded means only: scores "
                "of single prompts, other strengths and other numbers of steps are missing. "
                "`reward-tuning evaluate` on this run measures them.",
            ),
        }
    )


def unfinished(folder: Path) -> Evaluation:
    """Return what a run without evaluation.json can show: its first and newest sample clips.

    Raises:
        TuningError: samples/prompts.json is damaged.
    """
    questions, clips = sample_clips(folder)
    sides = [Side(name="base", clips=clips[0])] if clips else []
    if len(clips) > 1:
        sides.append(Side(name="tuned", strength=1.0, against=0, clips=clips[-1]))
    why = "This run has no evaluation yet: it is not finished, so there is no verdict."
    if (folder / FINETUNE).is_file():
        why = "This is a fine-tuning: no judge measured it, so there is no verdict."
    return Evaluation(questions=tuple(questions), sides=tuple(sides), missing=(why,))


def sample_clips(folder: Path) -> tuple[Sequence[Question], list[dict[int, str]]]:
    """Return the prompts of a run's sample clips, and the clips of each step in order.

    Raises:
        TuningError: samples/prompts.json is damaged.
    """
    samples = folder / "samples"
    path = samples / "prompts.json"
    try:
        rows = parsed_json(path.read_text(encoding="utf-8"))
        questions = [Question.model_validate(row) for row in rows]
        names = [str(row["file"]) for row in rows]
    except FileNotFoundError:
        return [], []
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise TuningError(f"{path} is damaged ({error}); delete it and resume the run") from error
    steps = []
    for place in sorted(samples.glob("step-*")):
        at = [(i, place / name) for i, name in enumerate(names) if (place / name).is_file()]
        steps.append({i: file.relative_to(folder).as_posix() for i, file in at})
    return questions, [step for step in steps if step]

"""Which checkpoint of a run is exported, and why, in words: the end of the guards' work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reward_tuning.runs.guard_rules import acts, best_row
from reward_tuning.schema.recipe import Recipe

Row = Mapping[str, Any]


def choice(
    rows: Sequence[Row], recipe: Recipe, judges: Sequence[str], *, made: int, ended: bool
) -> dict[str, Any]:
    """Return the entry `checkpoint` of evaluation.json.

    Args:
        rows: Rows of guards.jsonl, at least one.
        recipe: Resolved.
        judges: Labels of the held-out judges.
        made: Steps that the training made.
        ended: Whether a rule ended it.

    Returns:
        `{"step", "of", "chosen_by", "stopped_at", "rule", "text"}`: the exported step, of so many
        in the recipe; the judge that chose it, or None; the step and the rule that ended the
        training, or None; and all of it in sentences.
    """
    judge = judges[0] if judges and recipe.guards.best else None
    best = best_row(rows, judge) if recipe.guards.best else None
    step = made if best is None else int(best["step"])
    rule = next((f["rule"] for f in rows[-1]["fired"] if f["action"] == "stop"), None)
    sentences = _sentences(
        rows,
        best,
        judge,
        judges[0] if judges else None,
        step,
        made,
        recipe.train.steps,
        ended,
    )
    return {
        "step": step,
        "of": recipe.train.steps,
        "chosen_by": judge,
        "stopped_at": made if ended else None,
        "rule": rule if ended else None,
        "text": " ".join(sentences),
    }


def _sentences(
    rows: Sequence[Row],
    best: Row | None,
    judge: str | None,
    held_out: str | None,
    step: int,
    made: int,
    steps: int,
    ended: bool,
) -> list[str]:
    said = []
    if ended:
        stopped = "; ".join(
            f"{f['rule']}: {f['text']}" for f in rows[-1]["fired"] if f["action"] == "stop"
        )
        said.append(f"A guard ended the training at step {made} of {steps} ({stopped}).")
    for row in rows:
        if acts(row) == "rollback":
            why = next(f["rule"] for f in row["fired"] if f["action"] == "rollback")
            place = f"step {row['back_to']}" if row["back_to"] else "the start"
            said.append(f"At step {row['step']} {why} led back to {place}.")
    said += _warnings(rows)
    if step == made:
        said.append(f"Exported: the last checkpoint, step {step}{_against(rows, best, judge)}.")
    else:
        said.append(f"Exported: step {step} of {made}{_against(rows, best, judge)}.")
    said += _below_base(best or rows[-1], held_out, step)
    if judge is not None and all(row["measures"][judge]["mean"] <= 0 for row in rows):
        said.append("No checkpoint is above the base.")
    if not any(row["fired"] for row in rows):
        said.append("No guard fired.")
    return said


def _below_base(exported: Row, held_out: str | None, step: int) -> list[str]:
    """Say that the exported checkpoint is below the base by the held-out judge, where it is."""
    if held_out is None or exported["step"] != step:
        return []
    mean = exported["measures"][held_out]["mean"]
    if mean >= 0:
        return []
    return [f"It is below the base by {-mean:.2g} on the held-out judge {held_out}."]


def _warnings(rows: Sequence[Row]) -> list[str]:
    first: dict[str, tuple[int, str]] = {}
    for row in rows:
        for fired in row["fired"]:
            if fired["action"] == "warn":
                first.setdefault(fired["rule"], (row["step"], fired["text"]))
    return [
        f"From step {step} guard {rule} warned: {text}." for rule, (step, text) in first.items()
    ]


def _against(rows: Sequence[Row], best: Row | None, judge: str | None) -> str:
    """Return the judge's score at the exported step, at the last one, and of the base."""
    if best is None or judge is None:
        return ""
    found, last = best["measures"][judge], rows[-1]["measures"][judge]
    text = f", chosen by {judge}: {found['now']:.4g}"
    if best is not rows[-1]:
        text += f", at step {rows[-1]['step']} {last['now']:.4g}"
    return f"{text} (base {found['base']:.4g})"

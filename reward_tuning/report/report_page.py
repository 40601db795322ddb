"""The report of a run or of an evaluation: one HTML file made from the files of its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import ANOTHER_PLACE, atomic_write
from reward_tuning.report.chain import chain_figures
from reward_tuning.report.clips import ClipSet, collect_clips
from reward_tuning.report.curves import cost_curves, guard_curves, training_curves
from reward_tuning.report.dials import sampling_figures, series_of, strength_figures
from reward_tuning.report.evaluations import EVALUATION, Evaluation, read_evaluation, unfinished
from reward_tuning.report.facts import Facts, read_facts
from reward_tuning.report.metric_groups import metric_records
from reward_tuning.report.pages import Page, readable, render_page
from reward_tuning.report.run_rows import Row, read_rows
from reward_tuning.report.verdict import deciding_side, side_verdicts, verdict_of
from reward_tuning.report.voted_on import voted_on

REPORT = "report.html"
SCRIPTS = (
    "clock.js",
    "screens.js",
    "controls.js",
    "gallery.js",
    "enlarged.js",
    "table.js",
    "charts.js",
    "vote_statistics.js",
    "vote_box.js",
    "vote_result.js",
    "vote.js",
)
STYLES = ("page.css", "report.css", "vote.css")


def write_report(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the report of a run folder, or of a folder of `evaluate`.

    Args:
        folder: Folder with recipe.yaml, evaluation.json, or both. Files that an older version did
            not write are named in the page as missing.
        output: The file; None = `report.html` in the folder.

    Returns:
        Path of the report.

    Raises:
        TuningError: The folder is neither, a file of it is damaged, or the disk is full.
    """
    folder = Path(folder)
    path = folder / REPORT if output is None else Path(output)
    page = report_page(folder)
    atomic_write(path, render_page(page).encode(), advice=ANOTHER_PLACE)
    return path


def report_page(folder: Path) -> Page:
    """Return what the report of a folder is made of.

    Raises:
        TuningError: As `write_report`.
    """
    if not ((folder / EVALUATION).is_file() or (folder / "recipe.yaml").is_file()):
        raise TuningError(
            f"{folder} is no run folder and no evaluation: it has neither recipe.yaml nor "
            f"{EVALUATION}; give the `output` of a run or of `reward-tuning evaluate`"
        )
    rows = read_rows(folder / "metrics.jsonl")
    facts = read_facts(folder, rows)
    evaluation = read_evaluation(folder) or unfinished(folder)
    clips = collect_clips(folder, [side.clips for side in evaluation.sides])
    place = folder.resolve()
    of_run = not facts.text and (place.parent / "recipe.yaml").is_file()
    name = readable((place.parent if of_run else place).name or "report")
    return Page(
        "report.html",
        f"{name} – report",
        report_data(folder, evaluation, clips, facts, rows),
        SCRIPTS,
        STYLES,
        {
            "name": name,
            "kind": "Run" if facts.text else "Evaluation of" if of_run else "Evaluation:",
            "verdict": verdict_of(evaluation),
            "evaluation": evaluation,
            "checkpoint": evaluation.checkpoint,
            "notes": [*evaluation.missing, *clips.notes],
            "facts": facts,
            "has_facts": bool(facts.text or facts.machine),
            "has_clips": bool(clips.clips),
            "has_scores": bool(evaluation.questions),
        },
        clips.encoded(),
    )


def report_data(
    folder: Path,
    evaluation: Evaluation,
    clips: ClipSet,
    facts: Facts,
    rows: Sequence[Row],
) -> Mapping[str, Any]:
    """Return the data that the scripts of the report read.

    Args:
        folder: The folder.
        evaluation: Its evaluation.
        clips: The clips of its sides.
        facts: Its recipe and machine.
        rows: Rows of its metrics.jsonl.
    """
    guards = read_rows(folder / "guards.jsonl")
    figures = [
        *training_curves(rows, evaluation.checkpoint),
        *guard_curves(
            guards, rows, facts.recipe, evaluation.never_trained_on, evaluation.checkpoint
        ),
        *chain_figures(rows, facts.recipe),
        *cost_curves(rows),
        *strength_figures(evaluation),
        *sampling_figures(evaluation),
    ]
    return {
        "report": voted_on(folder, evaluation, clips.names),
        "primary": evaluation.primary,
        "metrics": metric_records(evaluation, judge_kinds(facts.recipe)),
        "questions": [question.model_dump() for question in evaluation.questions],
        "sides": [
            {
                "name": side.name,
                "adapter": side.adapter,
                "strength": side.strength,
                "steps": side.steps,
                "guidance": side.guidance_scale,
                "against": side.against,
                "scores": side.scores,
                "means": side.means,
                "difference": {k: v.model_dump() for k, v in side.difference.items()},
                "verdicts": side_verdicts(side, evaluation),
                "clips": {str(k): v for k, v in names.items()},
            }
            for side, names in zip(evaluation.sides, clips.names, strict=True)
        ],
        "series": [
            {"label": one.label, "base": one.base, "sides": list(one.sides)}
            for one in series_of(evaluation)
        ],
        "side": deciding_side(evaluation),
        "clips": {name: clip.facts() for name, clip in clips.clips.items()},
        "figures": [figure.record() for figure in figures],
    }


def judge_kinds(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return the kind of each judge of a recipe by its label."""
    evaluation = recipe.get("evaluation")
    held_out = evaluation.get("held_out_rewards") if isinstance(evaluation, Mapping) else None
    found = {}
    for judge in [*(recipe.get("rewards") or ()), *(held_out or ())]:
        if isinstance(judge, Mapping) and isinstance(judge.get("kind"), str):
            found[str(judge.get("name") or judge["kind"])] = judge["kind"]
    return found
